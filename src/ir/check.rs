//! What makes a model unusable: [`check`] is the gate before a rewrite and before a file is written.
//!
//! Only what is certainly wrong is refused, by the rules of ONNX's IR specification and of its checker
//! (`onnx/checker.cc` and `OpSchema::Verify`), and one of ONNX Runtime: no two nodes of a graph may
//! share a name. Of the rules on IR versions the checker holds one, that an initializer which is not
//! an input needs version 4; functions, overloads and narrow types in files of an older version are read
//! by everybody. Operator sets newer than the table are refused too: what their operators mean is unknown here.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::conformance;
use super::operators::{self, Known};
use super::proto::{
    FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TrainingInfoProto,
};

/// The IR version from which on an initializer need not be an input.
const FREE_INITIALIZERS: i64 = 4;

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: String,
    pub(super) why: String,
    pub(super) remedy: Remedy,
}

/// What helps.
#[derive(Debug, Default)]
pub(super) enum Remedy {
    /// Nothing that can be said in general.
    #[default]
    None,
    /// A newer operator set.
    Opset(i64),
    /// An operator set that is not newer than this.
    Older(i64),
    /// A newer IR version.
    IrVersion(i64),
    /// An `opset_import` of this domain.
    Import(String),
    /// Other names for nodes.
    Names,
}

pub(super) fn fault(place: impl Into<String>, why: impl Into<String>) -> Fault {
    Fault { place: place.into(), why: why.into(), remedy: Remedy::None }
}

impl Fault {
    fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = remedy;
        self
    }
}

/// Operator sets by domain.
type Imports<'m> = BTreeMap<&'m str, i64>;
/// Domain, name and overload of a function.
type Id<'m> = (&'m str, &'m str, &'m str);

/// Checks everything about a model but the data of its tensors.
pub(super) fn check(model: &ModelProto) -> Result<(), Fault> {
    let ir = model.ir_version();
    if ir < 1 {
        return Err(fault("the model", "it has no ir_version").remedy(Remedy::IrVersion(8)));
    }
    let mut opsets = imports(&model.opset_import);
    if ir < 3 {
        // Before IR version 3 there was one operator set, and no way to say so.
        opsets.entry("").or_insert(1);
    }
    let mut functions: HashMap<Id<'_>, &FunctionProto> = HashMap::new();
    for function in &model.functions {
        if functions.insert(id(function), function).is_some() {
            return Err(fault(format!("function {}", title(function)), "another has the same name"));
        }
    }
    let checker = Checker { ir, opsets: &opsets, functions: &functions };
    checker.no_recursion()?;
    for function in &model.functions {
        checker.function(function)?;
    }
    let body = Body { checker: &checker, imports: &opsets, function: None };
    let Some(graph) = &model.graph else { return Ok(()) };
    let scope = body.graph(graph, None, "")?;
    let mut all = model.training_info.iter().enumerate();
    all.try_for_each(|(at, training)| body.training(graph, training, &scope, at))
}

fn imports(sets: &[OperatorSetIdProto]) -> Imports<'_> {
    let sets = sets.iter().rev();
    sets.map(|set| (operators::domain_name(set.domain()), set.version())).collect()
}

fn id(function: &FunctionProto) -> Id<'_> {
    (operators::domain_name(function.domain()), function.name(), function.overload())
}

fn called(node: &NodeProto) -> Id<'_> {
    (operators::domain_name(node.domain()), node.op_type(), node.overload())
}

fn title(function: &FunctionProto) -> String {
    match function.domain() {
        "" => format!("{:?}", function.name()),
        domain => format!("{:?}", format!("{domain}.{}", function.name())),
    }
}

/// The nodes of a list, and of all graphs within them.
fn all_nodes<'m>(nodes: &'m [NodeProto], visit: &mut dyn FnMut(&'m NodeProto)) {
    for node in nodes {
        visit(node);
        node.nested().for_each(|graph| all_nodes(&graph.node, visit));
    }
}

struct Checker<'c, 'm> {
    ir: i64,
    opsets: &'c Imports<'m>,
    functions: &'c HashMap<Id<'m>, &'m FunctionProto>,
}

impl<'m> Checker<'_, 'm> {
    /// No function calls itself, over others or not.
    fn no_recursion(&self) -> Result<(), Fault> {
        // Each function is done after all that it calls; those that are never done call themselves.
        let mut waits: HashMap<Id<'m>, HashSet<Id<'m>>> = HashMap::new();
        for (&id, &function) in self.functions {
            let mut calls = HashSet::new();
            all_nodes(&function.node, &mut |node| {
                calls.extend(self.functions.contains_key(&called(node)).then(|| called(node)));
            });
            waits.insert(id, calls);
        }
        loop {
            let done: Vec<Id<'m>> =
                waits.iter().filter(|(_, calls)| calls.is_empty()).map(|(&id, _)| id).collect();
            if done.is_empty() {
                break;
            }
            done.iter().for_each(|id| drop(waits.remove(id)));
            waits.values_mut().for_each(|calls| calls.retain(|call| !done.contains(call)));
        }
        match waits.keys().min() {
            None => Ok(()),
            Some(id) => {
                let place = format!("function {}", title(self.functions[id]));
                Err(fault(place, "it calls itself, or a function that does"))
            }
        }
    }

    fn function(&self, function: &'m FunctionProto) -> Result<(), Fault> {
        let own = imports(&function.opset_import);
        let body = Body { checker: self, imports: &own, function: Some(function) };
        let inside = format!(" of function {}", title(function));
        let mut scope = Scope::default();
        for input in &function.input {
            if scope.own.insert(input, None).is_some() {
                return Err(fault(format!("input {input:?}{inside}"), "another has the same name"));
            }
        }
        body.nodes(&function.node, &mut scope, &HashMap::new(), &inside)?;
        match function.output.iter().find(|output| !scope.own.contains_key(output.as_str())) {
            Some(output) => Err(fault(format!("output {output:?}{inside}"), "nothing makes it")),
            None => Ok(()),
        }
    }
}

/// The values of a graph up to a node, with their element types where these are known, and those of
/// the graphs around it.
#[derive(Default)]
struct Scope<'s, 'm> {
    outer: Option<&'s Scope<'s, 'm>>,
    own: HashMap<&'m str, Option<i32>>,
}

impl Scope<'_, '_> {
    fn get(&self, name: &str) -> Option<Option<i32>> {
        let own = self.own.get(name).copied();
        own.or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }
}

/// What a list of nodes stands in: the model, or a function with its own imports.
struct Body<'c, 'm> {
    checker: &'c Checker<'c, 'm>,
    imports: &'c Imports<'m>,
    function: Option<&'m FunctionProto>,
}

impl<'m> Body<'_, 'm> {
    /// A graph of the model, or one within another, whose place `inside` says.
    fn graph<'s>(
        &self,
        graph: &'m GraphProto,
        outer: Option<&'s Scope<'s, 'm>>,
        inside: &str,
    ) -> Result<Scope<'s, 'm>, Fault> {
        let mut scope = Scope { outer, own: HashMap::with_capacity(2 * graph.node.len()) };
        for input in &graph.input {
            let place = || format!("graph input {:?}{inside}", input.name());
            if outer.is_none() && input.r#type.as_ref().is_none_or(|kind| kind.value.is_none()) {
                return Err(fault(place(), "it has no type"));
            }
            if scope.own.insert(input.name(), input.elem_type()).is_some() {
                return Err(fault(place(), "another has the same name"));
            }
        }
        self.initializers(graph, &mut scope, inside)?;
        let described = graph.value_info.iter().chain(&graph.output);
        let declared: HashMap<&str, i32> =
            described.filter_map(|value| Some((value.name(), value.elem_type()?))).collect();
        self.nodes(&graph.node, &mut scope, &declared, inside)?;
        for output in &graph.output {
            let place = || format!("graph output {:?}{inside}", output.name());
            match (scope.own.get(output.name()), output.elem_type()) {
                (None, _) if scope.get(output.name()).is_some() => {
                    let why =
                        "a graph around it has this value; a node of its own must make its outputs";
                    return Err(fault(place(), why));
                }
                (None, _) => return Err(fault(place(), "nothing makes it")),
                (Some(&Some(is)), Some(says)) if is != says => {
                    return Err(fault(place(), differs(is, says)));
                }
                _ => {}
            }
        }
        Ok(scope)
    }

    /// The two graphs of training and what they are bound to, as `TrainingInfoProto` of `onnx.proto` has it:
    /// the algorithm goes on where the main graph ends, the initialization stands alone; they assign their
    /// outputs to initializers.
    fn training(
        &self,
        main: &'m GraphProto,
        training: &'m TrainingInfoProto,
        scope: &Scope<'_, 'm>,
        at: usize,
    ) -> Result<(), Fault> {
        let graphs = [
            ("initialization", &training.initialization, None, &training.initialization_binding),
            ("algorithm", &training.algorithm, Some(scope), &training.update_binding),
        ];
        let initializers = || {
            let graphs = std::iter::once(main).chain(&training.algorithm);
            graphs.flat_map(|graph| graph.constants().map(|tensor| tensor.name()))
        };
        for (name, graph, outer, bindings) in graphs {
            let inside = format!(" of training {at}, {name}");
            if let Some(graph) = graph {
                let mut inner = Scope { outer, own: HashMap::new() };
                inner.own.extend(graph.input.iter().map(|input| (input.name(), input.elem_type())));
                self.initializers(graph, &mut inner, &inside)?;
                self.nodes(&graph.node, &mut inner, &HashMap::new(), &inside)?;
                if let Some(output) = graph.output.iter().find(|o| inner.get(o.name()).is_none()) {
                    let place = format!("graph output {:?}{inside}", output.name());
                    return Err(fault(place, "nothing makes it"));
                }
            }
            for binding in bindings {
                let refuse = |why| Err(fault(format!("binding {:?}{inside}", binding.key()), why));
                let outer = outer.into_iter().flat_map(|_| &main.output);
                let mut outputs = graph.iter().flat_map(|graph| &graph.output).chain(outer);
                if !initializers().any(|name| name == binding.key()) {
                    return refuse("no initializer has this name".to_owned());
                }
                if !outputs.any(|output| output.name() == binding.value()) {
                    return refuse(format!("no output is called {:?}", binding.value()));
                }
            }
        }
        Ok(())
    }

    fn initializers(
        &self,
        graph: &'m GraphProto,
        scope: &mut Scope<'_, 'm>,
        inside: &str,
    ) -> Result<(), Fault> {
        let mut names = HashSet::new();
        for tensor in graph.constants() {
            let name = tensor.name();
            let place = || format!("initializer {name:?}{inside}");
            if name.is_empty() || !names.insert(name) {
                return Err(fault(place(), "initializers need unique names"));
            }
            let input = scope.own.get(name).copied();
            if input.is_none() && self.checker.ir < FREE_INITIALIZERS {
                let why = format!(
                    "it is not a graph input; that needs IR version {FREE_INITIALIZERS}, and the model has {}",
                    self.checker.ir
                );
                return Err(fault(place(), why).remedy(Remedy::IrVersion(FREE_INITIALIZERS)));
            }
            let dtype = Some(tensor.data_type()).filter(|&dtype| dtype != 0);
            if let (Some(is), Some(Some(says))) = (dtype, input)
                && is != says
            {
                return Err(fault(place(), differs(is, says)));
            }
            scope.own.insert(name, dtype);
        }
        Ok(())
    }

    fn nodes(
        &self,
        nodes: &'m [NodeProto],
        scope: &mut Scope<'_, 'm>,
        declared: &HashMap<&'m str, i32>,
        inside: &str,
    ) -> Result<(), Fault> {
        let mut names: HashMap<&str, usize> = HashMap::with_capacity(nodes.len());
        for (at, node) in nodes.iter().enumerate() {
            let place = || format!("node {at} {:?} ({}){inside}", node.name(), node.qualified_op());
            let refuse =
                |why: String, remedy: Remedy| Fault { place: place() + &author(node), why, remedy };
            if !node.name().is_empty()
                && let Some(first) = names.insert(node.name(), at)
            {
                let why = format!("node {first} has the same name, and ONNX Runtime refuses that");
                return Err(refuse(why, Remedy::Names));
            }
            let unknown = |name: &&String| !name.is_empty() && scope.get(name).is_none();
            if let Some(input) = node.input.iter().find(unknown) {
                let later = nodes.iter().position(|other| other.output.contains(input));
                let why = match later {
                    Some(later) => format!("it uses {input:?}, which node {later} makes later"),
                    None => format!("it uses {input:?}, which nothing makes"),
                };
                return Err(refuse(why, Remedy::None));
            }
            for attribute in &node.attribute {
                let inside = || format!(" in {:?} of {}", attribute.name(), place());
                attribute
                    .nested()
                    .try_for_each(|graph| self.graph(graph, Some(scope), &inside()).map(drop))?;
            }
            let types = self.form(node, scope).map_err(|(why, remedy)| refuse(why, remedy))?;
            for (at, output) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                if scope.get(output).is_some() {
                    let why = format!("it makes {output:?}, which is there already");
                    return Err(refuse(why, Remedy::None));
                }
                let says = declared.get(output.as_str()).copied();
                let is = types.get(at).copied().flatten();
                if let (Some(is), Some(says)) = (is, says)
                    && is != says
                {
                    return Err(refuse(format!("{output:?}: {}", differs(is, says)), Remedy::None));
                }
                scope.own.insert(output, is.or(says));
            }
        }
        Ok(())
    }

    /// A node against its operator or function; the element types of its outputs.
    fn form(
        &self,
        node: &'m NodeProto,
        scope: &Scope<'_, 'm>,
    ) -> Result<Vec<Option<i32>>, (String, Remedy)> {
        let domain = operators::domain_name(node.domain());
        let shown = if domain.is_empty() { "ai.onnx" } else { domain };
        let Some(&version) = self.imports.get(domain) else {
            let by = if self.function.is_some() { "function" } else { "model" };
            return Err((
                format!("the {by} doesn't import its domain {shown:?}"),
                Remedy::Import(domain.to_owned()),
            ));
        };
        if let Some(function) = self.checker.functions.get(&called(node)) {
            let lists =
                [("input", &node.input, &function.input), ("output", &node.output, &function.output)];
            let more = lists.iter().find(|(_, given, takes)| given.len() > takes.len());
            return more.map_or(Ok(Vec::new()), |(what, given, takes)| {
                let why = format!("it has {} {what}s; the function has {}", given.len(), takes.len());
                Err((why, Remedy::None))
            });
        }
        let op = node.op_type();
        let remedy = |needs: Option<i64>| match needs {
            Some(opset) if domain.is_empty() => Remedy::Opset(opset),
            _ => Remedy::None,
        };
        match operators::find(domain, op, version) {
            Known::Unjudged => Ok(Vec::new()),
            Known::Newer(newest) => {
                let why = format!("opset {version} is newer than {newest}, the newest that is known");
                Err((why, Remedy::Older(newest)))
            }
            Known::Later(since) => {
                let why = format!("{op} needs opset {since}; the model has opset {version}");
                Err((why, remedy(Some(since))))
            }
            Known::Never(near) => {
                Err((format!("{shown} has no operator {op:?}; did you mean {near:?}?"), Remedy::None))
            }
            Known::Form(form) => {
                self.one_form(node, form.since)?;
                let type_of = |name: &'m str| scope.get(name).flatten();
                conformance::outputs(node, form, version, self.checker.ir, type_of)
                    .map_err(|misfit| (misfit.why, remedy(misfit.needs)))
            }
        }
    }

    /// A function's operator has the form that it has in the model, whose nodes the function's become.
    fn one_form(&self, node: &NodeProto, since: i64) -> Result<(), (String, Remedy)> {
        let domain = operators::domain_name(node.domain());
        let (Some(_), Some(&version)) = (self.function, self.checker.opsets.get(domain)) else {
            return Ok(());
        };
        match operators::find(domain, node.op_type(), version) {
            Known::Form(form) if form.since != since => {
                let why = format!(
                    "its form is of opset {since} in the function, and of opset {} in the model",
                    form.since
                );
                Err((why, Remedy::None))
            }
            _ => Ok(()),
        }
    }
}

fn differs(is: i32, says: i32) -> String {
    let (is, says) = (super::dtype_name(is), super::dtype_name(says));
    format!("it is {is}, and the graph says {says}")
}

/// The pass that made a node, to be added to its place.
fn author(node: &NodeProto) -> String {
    node.author().map(|pass| format!(", made by the pass {pass}")).unwrap_or_default()
}
