//! One node against the form of its operator: how many inputs and outputs, which attributes, which
//! element types.

use super::operators::{Arity, Form, Kind, Parameter, history};
use super::proto::{AttributeProto, NodeProto, attribute_proto::AttributeType, tensor_proto::DataType};

/// Why a node is not of the form that its operator set asks for.
pub(super) struct Misfit {
    pub(super) why: String,
    /// The operator set from which on it would be.
    pub(super) needs: Option<i64>,
}

/// The element types of a node's outputs, as far as its operator's form and the types of its inputs
/// tell; `type_of` knows the type of a value, or doesn't.
///
/// # Errors
/// [`Misfit`], where the node is certainly not of that form.
pub(super) fn outputs<'m>(
    node: &'m NodeProto,
    form: &Form,
    version: i64,
    ir: i64,
    type_of: impl Fn(&'m str) -> Option<i32> + Copy,
) -> Result<Vec<Option<i32>>, Misfit> {
    let op = node.op_type();
    let judge = |form: &Form| {
        if form.deprecated {
            return Err(format!("{op} ended with opset {}", form.since - 1));
        }
        count(node, form)?;
        attributes(node, form, ir)?;
        types(node, form, type_of)
    };
    judge(form).map_err(|why| {
        let forms = history(node.domain(), op);
        let good = |form: &&Form| !form.open && judge(form).is_ok();
        let later = forms.iter().filter(|other| other.since > version).find(good);
        let earlier = forms.iter().rev().filter(|other| other.since < form.since).find(good);
        let hint = match (later, earlier) {
            (Some(later), _) => format!("; this form needs opset {}", later.since),
            (_, Some(earlier)) => {
                let next = forms.iter().find(|other| other.since > earlier.since);
                let end = next.map_or(earlier.since, |next| next.since - 1);
                format!("; this form ended with opset {end}")
            }
            _ => String::new(),
        };
        let why = format!("{why}{hint}; the model has opset {version}");
        Misfit { why, needs: later.map(|form| form.since) }
    })
}

/// As many inputs and outputs as there may be, and those that must have a name with one.
fn count(node: &NodeProto, form: &Form) -> Result<(), String> {
    let lists = [("input", &node.input, &form.inputs), ("output", &node.output, &form.outputs)];
    for (what, names, parameters) in lists {
        let (least, most) = Form::count(parameters);
        if names.len() < least || names.len() > most && !form.open {
            let wants = match () {
                () if least == most => super::counted(most, what),
                () if most == usize::MAX => format!("{} or more", super::counted(least, what)),
                () => format!("{least} to {}", super::counted(most, what)),
            };
            return Err(format!("it has {}; {} takes {wants}", names.len(), node.op_type()));
        }
        for (at, parameter) in parameters.iter().enumerate() {
            if parameter.arity == Arity::Required && names.get(at).is_some_and(String::is_empty) {
                return Err(format!("{what} {at} ({}) must not be left out", parameter.name));
            }
        }
    }
    Ok(())
}

/// Each attribute known, once, of its type; each required one there. A name that begins with `__` is
/// a runtime's own note.
fn attributes(node: &NodeProto, form: &Form, ir: i64) -> Result<(), String> {
    for (at, attribute) in node.attribute.iter().enumerate() {
        let name = attribute.name();
        if node.attribute[..at].iter().any(|other| other.name() == name) {
            return Err(format!("it has two attributes {name:?}"));
        }
        if name.starts_with("__") {
            continue;
        }
        let Some(allowed) = form.attributes.iter().find(|allowed| allowed.name == name) else {
            if form.open {
                continue;
            }
            return Err(format!("{} has no attribute {name:?}", node.op_type()));
        };
        // Types of attributes came with IR version 2.
        if attribute.r#type.is_none() && ir < 2 {
            continue;
        }
        let kind = attribute.r#type();
        if kind != allowed.kind {
            return Err(format!(
                "its attribute {name:?} is {}, not {}",
                kind_name(kind),
                kind_name(allowed.kind)
            ));
        }
        if attribute.ref_attr_name().is_empty() {
            value(attribute, kind)?;
        }
    }
    let has = |name: &str| node.attribute.iter().any(|attribute| attribute.name() == name);
    match form.attributes.iter().find(|attribute| attribute.required && !has(attribute.name)) {
        Some(absent) => Err(format!("its attribute {:?} is missing", absent.name)),
        None => Ok(()),
    }
}

fn kind_name(kind: AttributeType) -> String {
    match kind {
        AttributeType::Undefined => "without a type".to_owned(),
        kind => kind.as_str_name().to_lowercase(),
    }
}

/// The value of an attribute stands in the field of its type, and in no other.
fn value(attribute: &AttributeProto, kind: AttributeType) -> Result<(), String> {
    use AttributeType as T;
    let a = attribute;
    let there = [
        (T::Float, a.f.is_some()),
        (T::Int, a.i.is_some()),
        (T::String, a.s.is_some()),
        (T::Tensor, a.t.is_some()),
        (T::Graph, a.g.is_some()),
        (T::SparseTensor, a.sparse_tensor.is_some()),
        (T::TypeProto, a.tp.is_some()),
        (T::Floats, !a.floats.is_empty()),
        (T::Ints, !a.ints.is_empty()),
        (T::Strings, !a.strings.is_empty()),
        (T::Tensors, !a.tensors.is_empty()),
        (T::Graphs, !a.graphs.is_empty()),
        (T::SparseTensors, !a.sparse_tensors.is_empty()),
        (T::TypeProtos, !a.type_protos.is_empty()),
    ];
    let name = a.name();
    if let Some((other, _)) = there.iter().find(|(other, there)| *there && *other != kind) {
        let (kind, other) = (kind_name(kind), kind_name(*other));
        return Err(format!("its attribute {name:?} is {kind}, with a value that is {other}"));
    }
    let message = matches!(kind, T::Tensor | T::Graph | T::SparseTensor | T::TypeProto);
    if message && there.iter().all(|(_, there)| !there) {
        return Err(format!("its attribute {name:?} is {}, with no value", kind_name(kind)));
    }
    Ok(())
}

/// Inputs are of the types that the form allows and alike where it says so; what follows for the
/// outputs.
fn types<'m>(
    node: &'m NodeProto,
    form: &Form,
    type_of: impl Fn(&'m str) -> Option<i32>,
) -> Result<Vec<Option<i32>>, String> {
    let op = node.op_type();
    let mut bound: Vec<Option<(i32, usize)>> = vec![None; form.variables.len()];
    for (at, input) in node.input.iter().enumerate().filter(|(_, input)| !input.is_empty()) {
        let (Some(parameter), Some(dtype)) = (Form::at(&form.inputs, at), type_of(input)) else {
            continue;
        };
        let shown = |dtype| super::dtype_name(dtype);
        if !form.types(parameter).contains(dtype) {
            let takes = form.types(parameter).names();
            let name = parameter.name;
            return Err(format!(
                "input {at} ({name}), {input:?}, is {}; {op} takes {takes}",
                shown(dtype)
            ));
        }
        let Some(variable) = variable(parameter) else { continue };
        match bound[variable] {
            Some((other, first)) if other != dtype => {
                return Err(format!(
                    "input {first}, {:?}, is {}, and input {at}, {input:?}, is {}; {op} takes one type",
                    node.input[first],
                    shown(other),
                    shown(dtype)
                ));
            }
            _ => bound[variable] = Some((dtype, at)),
        }
    }
    let outputs = (0..node.output.len()).map(|at| {
        let parameter = Form::at(&form.outputs, at)?;
        match parameter.kind {
            Kind::Of(types) => types.only(),
            Kind::Variable(at) => {
                let alike = variable(parameter).is_some();
                let dtype = bound[at].filter(|_| alike).map(|(dtype, _)| dtype);
                dtype.or_else(|| attribute_type(node)).or_else(|| form.variables[at].1.only())
            }
        }
    });
    Ok(outputs.collect())
}

/// The variable that all values of a parameter share.
fn variable(parameter: &Parameter) -> Option<usize> {
    match (parameter.kind, parameter.arity) {
        (Kind::Variable(_), Arity::Variadic { alike: false, .. }) => None,
        (Kind::Variable(at), _) => Some(at),
        (Kind::Of(_), _) => None,
    }
}

/// The type that a node's attributes give to what it makes.
fn attribute_type(node: &NodeProto) -> Option<i32> {
    let dtype = |dtype: DataType| Some(dtype as i32);
    let attribute = |name: &str| node.attr(name);
    match node.op_type() {
        "Constant" => node.attribute.iter().find_map(|a| match a.name() {
            "value" => a.t.as_ref().map(|t| t.data_type()),
            "sparse_value" => Some(a.sparse_tensor.as_ref()?.values.as_ref()?.data_type()),
            "value_float" | "value_floats" => dtype(DataType::Float),
            "value_int" | "value_ints" => dtype(DataType::Int64),
            "value_string" | "value_strings" => dtype(DataType::String),
            _ => None,
        }),
        "ConstantOfShape" => match attribute("value") {
            Some(value) => value.t.as_ref().map(|t| t.data_type()),
            None => dtype(DataType::Float),
        },
        "Cast" => attribute("to")?.i.and_then(|i| i32::try_from(i).ok()),
        _ => {
            let named = ["dtype", "output_dtype", "output_datatype"].into_iter().find_map(attribute);
            named?.i.and_then(|i| i32::try_from(i).ok())
        }
    }
    .filter(|&dtype| dtype != DataType::Undefined as i32)
}
