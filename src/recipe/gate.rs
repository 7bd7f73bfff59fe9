use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checks::{Checks, Outcome};

/// Figures are above this and below [`MOST`]; beyond it a bound is a typo.
const LEAST: f64 = 1.0e-3;
const MOST: f64 = 1.0e6;

/// Declares a gate: its figures by their keys, none of which has to be given.
macro_rules! gate {
    ($(#[$about:meta])* $gate:ident { $($(#[$doc:meta])* $key:ident,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $gate {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                #[schemars(range(min = LEAST, max = MOST))]
                pub $key: Option<f64>,
            )*
        }

        impl $gate {
            /// Every figure by its key.
            pub fn figures(&self) -> Vec<(&'static str, Option<f64>)> {
                vec![$((stringify!($key), self.$key)),*]
            }

            pub(super) fn validate(&self, here: &Checks) -> Outcome {
                validate(&self.figures(), here)
            }
        }
    };
}

gate! {
    /// What `bench --gate` holds the whole voice to on the machine that it runs on, of each graph the variant that
    /// is fastest there. A figure that is left out isn't asked for.
    Gate {
        /// The least seconds of speech that the whole voice makes in one second, of 200 characters.
        realtime_factor,
    }
}

gate! {
    /// What `bench --gate` holds a causal graph to.
    CausalGate {
        /// How many times faster the fastest smaller file says 200 characters than the fp32 one, each in the
        /// runtime where it is fastest; at least.
        faster_than_fp32,
        /// Milliseconds of a decode step with 256 cached positions, at most.
        step_ms,
        /// Peak memory of a process that loads and runs it, in millions of bytes, at most.
        memory_mb,
        /// Size of the file, in millions of bytes, at most.
        size_mb,
    }
}

gate! {
    /// What `bench --gate` holds a signal graph to.
    SignalGate {
        /// How many times faster the fastest smaller file makes the sound of 200 characters than the fp32 one, each in
        /// the runtime where it is fastest; at least.
        faster_than_fp32,
        /// Milliseconds for each second of sound, in calls of 32 frames, at most.
        second_ms,
        /// Peak memory of a process that loads and runs it, in millions of bytes, at most.
        memory_mb,
        /// Size of the file, in millions of bytes, at most.
        size_mb,
    }
}

/// Checks that each figure is a bound, and that there is one.
fn validate(figures: &[(&'static str, Option<f64>)], here: &Checks) -> Outcome {
    for (key, value) in figures {
        here.key(key).ensure(
            value.is_none_or(|value| (LEAST..=MOST).contains(&value)),
            format!("is {}, which is not a bound", value.unwrap_or_default()),
            format!("write a number from {LEAST} to {MOST}"),
        )?;
    }
    here.ensure(
        figures.iter().any(|(_, value)| value.is_some()),
        "asks for nothing",
        format!("write a figure, such as `{}: 1.5`, or take the key out", figures[0].0),
    )
}

#[cfg(test)]
mod tests {
    use crate::family;
    use crate::recipe::{Graph, Recipe};

    const BOTH: &str = "name: a\nsource: ./b\n";

    fn parse(text: &str) -> Result<Recipe, String> {
        family::recipes().parse(text, "t.yaml").map_err(|e| e.to_string())
    }

    fn sizes(recipe: &Recipe) -> Vec<(&str, Option<f64>)> {
        let size = |graph: &Graph| match graph {
            Graph::Causal(graph) => graph.gate.as_ref()?.size_mb,
            Graph::Signal(graph) => graph.gate.as_ref()?.size_mb,
        };
        recipe.graphs.iter().map(|(name, graph)| (name, size(graph))).collect()
    }

    #[test]
    fn a_gate_reads_back_as_it_was_written() {
        let text = format!(
            "{BOTH}gate: {{realtime_factor: 4}}\ngraphs:\n  lm: {{gate: {{size_mb: 130}}}}\n  decoder: {{gate: {{size_mb: 30}}}}\n"
        );
        let recipe = parse(&text).unwrap();
        assert_eq!(recipe.gate.as_ref().unwrap().realtime_factor, Some(4.0));
        assert_eq!(sizes(&recipe), [("decoder", Some(30.0)), ("lm", Some(130.0))]);
        assert_eq!(parse(&recipe.to_yaml()).unwrap(), recipe);
    }

    #[test]
    fn the_older_form_means_the_same() {
        let older = "decoder: {}\nlm: {}\ngate:\n  realtime_factor: 4\n  lm: {size_mb: 130}\n";
        let newer = "graphs: {decoder: {}, lm: {gate: {size_mb: 130}}}\ngate: {realtime_factor: 4}\n";
        let read = |text: &str| parse(&format!("{BOTH}{text}")).unwrap();
        assert_eq!(read(older), read(newer));
        let alone = read("lm:\ngate: {lm: {size_mb: 130}}\n");
        assert_eq!((sizes(&alone), alone.gate.clone()), (vec![("lm", Some(130.0))], None));
    }

    #[test]
    fn what_no_gate_may_be_is_refused_at_its_place() {
        let at =
            |gate: &str| parse(&format!("{BOTH}decoder: {{}}\nlm: {{}}\ngate:\n{gate}")).unwrap_err();
        assert_eq!(
            at("  lm: {step_mss: 3}\n"),
            "t.yaml:6:8: unknown key `step_mss`; did you mean `step_ms`?"
        );
        assert!(at("  lm: {step_ms: 0}\n").contains("`lm.gate.step_ms` is 0, which is not a bound"));
        assert!(at("  lm: {step_ms: .nan}\n").contains("which is not a bound"));
        assert!(at("  decoder: {size_mb: -1}\n").contains("`decoder.gate.size_mb` is -1"));
        assert!(at("").contains("`gate` asks for nothing"));
        assert!(at("  lm:\n").contains("`lm.gate` asks for nothing"));
        let half = |gate: &str| parse(&format!("{BOTH}lm: {{}}\ngate:\n{gate}")).unwrap_err();
        let other = half("  decoder: {second_ms: 3}\n");
        assert_eq!(other, "t.yaml:5:12: the gate of `decoder`, which this recipe doesn't export");
        let whole = half("  realtime_factor: 3\n");
        assert!(whole.contains("doesn't export all of one"), "{whole}");
    }
}
