//! Every tensor of a model, wherever it stands.

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

/// Where a tensor stands: in a list of the model, or in an attribute of a node, which is then named.
pub(super) struct Place<'a> {
    node: Option<(usize, &'a Option<String>, &'a Option<String>)>,
}

impl Place<'_> {
    /// `initializer "w"`, or `tensor "t" of node 3 "n" (Constant)`.
    pub(super) fn of(&self, tensor: &TensorProto) -> String {
        match self.node {
            None => format!("initializer {:?}", tensor.name()),
            Some((at, name, op)) => format!(
                "tensor {:?} of node {at} {:?} ({})",
                tensor.name(),
                name.as_deref().unwrap_or_default(),
                op.as_deref().unwrap_or_default()
            ),
        }
    }
}

/// Every tensor of a model: of nested graphs, attributes, sparse tensors, functions and training too.
macro_rules! tensor_walker {
    ($walk:ident, $iter:ident, $($mutable:tt)?) => {
        pub(super) fn $walk<E>(
            model: & $($mutable)? ModelProto,
            visit: &mut dyn FnMut(& $($mutable)? TensorProto, &Place<'_>) -> Result<(), E>,
        ) -> Result<(), E> {
            type Visit<'a, E> = &'a mut dyn FnMut(& $($mutable)? TensorProto, &Place<'_>) -> Result<(), E>;

            fn sparse<E>(
                sparse: & $($mutable)? SparseTensorProto,
                place: &Place<'_>,
                visit: Visit<'_, E>,
            ) -> Result<(), E> {
                let mut parts = sparse.values.$iter().chain(sparse.indices.$iter());
                parts.try_for_each(|tensor| visit(tensor, place))
            }
            fn attributes<E>(
                list: & $($mutable)? [AttributeProto],
                place: &Place<'_>,
                visit: Visit<'_, E>,
            ) -> Result<(), E> {
                for a in list {
                    a.t.$iter().chain(a.tensors.$iter()).try_for_each(|tensor| visit(tensor, place))?;
                    let mut all = a.sparse_tensor.$iter().chain(a.sparse_tensors.$iter());
                    all.try_for_each(|s| sparse(s, place, visit))?;
                    a.g.$iter().chain(a.graphs.$iter()).try_for_each(|inner| graph(inner, visit))?;
                }
                Ok(())
            }
            fn nodes<E>(list: & $($mutable)? [NodeProto], visit: Visit<'_, E>) -> Result<(), E> {
                list.$iter().enumerate().try_for_each(|(at, node)| {
                    let place = Place { node: Some((at, &node.name, &node.op_type)) };
                    attributes(& $($mutable)? node.attribute, &place, visit)
                })
            }
            fn graph<E>(graph: & $($mutable)? GraphProto, visit: Visit<'_, E>) -> Result<(), E> {
                let place = Place { node: None };
                graph.initializer.$iter().try_for_each(|tensor| visit(tensor, &place))?;
                graph.sparse_initializer.$iter().try_for_each(|s| sparse(s, &place, visit))?;
                nodes(& $($mutable)? graph.node, visit)
            }
            for inner in model.graph.$iter() {
                graph(inner, visit)?;
            }
            for training in model.training_info.$iter() {
                let mut graphs = training.initialization.$iter().chain(training.algorithm.$iter());
                graphs.try_for_each(|inner| graph(inner, visit))?;
            }
            for function in model.functions.$iter() {
                let place = Place { node: None };
                attributes(& $($mutable)? function.attribute_proto, &place, visit)?;
                nodes(& $($mutable)? function.node, visit)?;
            }
            Ok(())
        }
    };
}
tensor_walker!(for_each_tensor, iter,);
tensor_walker!(for_each_tensor_mut, iter_mut, mut);

/// The initializers of a graph and of the graphs within it.
pub(super) fn for_each_initializer<E>(
    graph: &mut GraphProto,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    graph.nested_mut().try_for_each(|graph| for_each_initializer(graph, visit))
}
