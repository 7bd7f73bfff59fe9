//! Every message of the format with every field of it: each is taken apart whole, so that a field which a
//! later version adds can't be left out.

use super::parts::Part;
use super::{Walk, tensor};
use crate::ir::proto::*;
use crate::ir::{counted, dtype_name};

macro_rules! messages {
    ($($type:ty { $($field:ident),* } $(key $key:expr;)? $(alias $alias:expr;)? $(label $label:expr;)?
       $(first $first:expr;)? show $show:expr;)*) => {$(
        impl Part for $type {
            fn same(&self, other: &Self) -> bool {
                let Self { $($field),* } = self;
                true $(&& $field.same(&other.$field))*
            }
            fn compare(&self, other: &Self, walk: &mut Walk) {
                $(
                    let first: fn(&Self, &Self, &mut Walk) -> bool = $first;
                    if first(self, other, walk) {
                        return;
                    }
                )?
                let Self { $($field),* } = self;
                $(walk.field(stringify!($field), $field, &other.$field);)*
            }
            fn show(&self, _: &str) -> String {
                let show: fn(&Self) -> String = $show;
                show(self)
            }
            $(fn key(&self) -> Option<String> {
                let key: fn(&Self) -> String = $key;
                Some(key(self))
            })?
            $(fn alias(&self) -> Option<String> {
                let alias: fn(&Self) -> Option<String> = $alias;
                alias(self)
            })?
            $(fn label(&self, at: usize) -> String {
                let label: fn(&Self, usize) -> String = $label;
                label(self, at)
            })?
        }
    )*};
}

macro_rules! one_of {
    ($($type:ty { $($variant:path => $field:literal),* })*) => {$(
        impl Part for $type {
            fn same(&self, other: &Self) -> bool {
                match (self, other) {
                    $(($variant(a), $variant(b)) => a.same(b),)*
                    _ => false,
                }
            }
            fn compare(&self, other: &Self, walk: &mut Walk) {
                match (self, other) {
                    $(($variant(a), $variant(b)) => walk.field($field, a, b),)*
                    _ => walk.changed(self.show(""), other.show(""), false),
                }
            }
            fn show(&self, _: &str) -> String {
                match self {
                    $($variant(part) => format!("{} {}", $field, part.show($field)),)*
                }
            }
        }
    )*};
}

one_of! {
    type_proto::Value {
        type_proto::Value::TensorType => "tensor_type",
        type_proto::Value::SequenceType => "sequence_type",
        type_proto::Value::MapType => "map_type",
        type_proto::Value::OptionalType => "optional_type",
        type_proto::Value::SparseTensorType => "sparse_tensor_type",
        type_proto::Value::OpaqueType => "opaque_type"
    }
    tensor_shape_proto::dimension::Value {
        tensor_shape_proto::dimension::Value::DimValue => "dim_value",
        tensor_shape_proto::dimension::Value::DimParam => "dim_param"
    }
    simple_sharded_dim_proto::Dim {
        simple_sharded_dim_proto::Dim::DimValue => "dim_value",
        simple_sharded_dim_proto::Dim::DimParam => "dim_param"
    }
}

messages! {
    ModelProto {
        ir_version, opset_import, producer_name, producer_version, domain, model_version, doc_string, graph,
        metadata_props, training_info, functions, configuration
    }
    show |_| "a model".to_owned();

    GraphProto {
        node, name, initializer, sparse_initializer, doc_string, input, output, value_info,
        quantization_annotation, metadata_props
    }
    show |graph| format!("graph {:?} of {}", graph.name(), counted(graph.node.len(), "node"));

    NodeProto {
        input, output, name, op_type, domain, overload, attribute, doc_string, metadata_props,
        device_configurations
    }
    key |node| match node.output.iter().find(|name| !name.is_empty()) {
        Some(output) => output.clone(),
        None => node.name().to_owned(),
    };
    alias |node| Some(node.name()).filter(|name| !name.is_empty()).map(|_| node.label(0));
    label |node, at| node.label(at);
    show |node| format!("{} -> {}", list(&node.input), list(&node.output));

    AttributeProto {
        name, ref_attr_name, doc_string, r#type, f, i, s, t, g, sparse_tensor, tp, floats, ints, strings,
        tensors, graphs, sparse_tensors, type_protos
    }
    key |attribute| attribute.name().to_owned();
    show |attribute| attribute.text();

    ValueInfoProto { name, r#type, doc_string, metadata_props }
    key |value| value.name().to_owned();
    show |value| value.r#type.as_ref().map_or_else(|| "no type".to_owned(), TypeProto::text);

    TypeProto { denotation, value }
    // A shape is read as a whole; what its text doesn't tell is looked for field by field.
    first |old, new, walk| {
        let texts = [old.text(), new.text()];
        let differ = texts[0] != texts[1];
        if differ {
            let [old_text, new_text] = texts;
            walk.changed(old_text, new_text, false);
            walk.field("denotation", &old.denotation, &new.denotation);
        }
        differ
    };
    show |of| of.text();

    type_proto::Tensor { elem_type, shape }
    show |of| dtype_name(of.elem_type());
    type_proto::SparseTensor { elem_type, shape }
    show |of| dtype_name(of.elem_type());
    type_proto::Sequence { elem_type }
    show |of| of.elem_type.show("elem_type");
    type_proto::Optional { elem_type }
    show |of| of.elem_type.show("elem_type");
    type_proto::Map { key_type, value_type }
    show |of| format!("{}, {}", dtype_name(of.key_type()), of.value_type.show("value_type"));
    type_proto::Opaque { domain, name }
    show |of| format!("{}.{}", of.domain(), of.name());

    TensorShapeProto { dim }
    show |shape| format!("[{}]", shape.sizes().join(", "));
    tensor_shape_proto::Dimension { denotation, value }
    show |dim| dim.value.show("value");

    SparseTensorProto { values, indices, dims }
    key |sparse| sparse.values.as_ref().map_or_else(String::new, |values| values.name().to_owned());
    show |sparse| {
        let dtype = sparse.values.as_ref().map_or(0, |values| values.data_type());
        format!("sparse {} {:?}", dtype_name(dtype), sparse.dims)
    };

    FunctionProto {
        name, input, output, attribute, attribute_proto, node, doc_string, opset_import, domain, overload,
        value_info, metadata_props
    }
    key |function| function.qualified_name();
    show |function| counted(function.node.len(), "node");

    OperatorSetIdProto { domain, version }
    key |set| if set.domain().is_empty() { "ai.onnx".to_owned() } else { set.domain().to_owned() };
    show |set| format!("version {}", set.version.show("version"));

    StringStringEntryProto { key, value }
    key |entry| entry.key().to_owned();
    show |entry| entry.value.show("value");

    TensorAnnotation { tensor_name, quant_parameter_tensor_names }
    key |annotation| annotation.tensor_name().to_owned();
    show |annotation| list_of(&annotation.quant_parameter_tensor_names);

    TrainingInfoProto { initialization, algorithm, initialization_binding, update_binding }
    show |_| "training information".to_owned();

    DeviceConfigurationProto { name, num_devices, device }
    key |configuration| configuration.name().to_owned();
    show |configuration| format!("{} devices", configuration.num_devices());
    NodeDeviceConfigurationProto { configuration_id, sharding_spec, pipeline_stage }
    key |configuration| configuration.configuration_id().to_owned();
    show |configuration| counted(configuration.sharding_spec.len(), "sharding specification");
    ShardingSpecProto { tensor_name, device, index_to_device_group_map, sharded_dim }
    key |spec| spec.tensor_name().to_owned();
    show |spec| format!("devices {:?}", spec.device);
    ShardedDimProto { axis, simple_sharding }
    show |dim| format!("axis {}", dim.axis());
    SimpleShardedDimProto { num_shards, dim }
    show |dim| format!("{} shards", dim.num_shards());
    IntIntListEntryProto { key, value }
    key |entry| entry.key().to_string();
    show |entry| format!("{:?}", entry.value);
    tensor_proto::Segment { begin, end }
    show |segment| format!("{}..{}", segment.begin(), segment.end());
}

impl Part for TensorProto {
    fn same(&self, other: &Self) -> bool {
        let Self {
            dims,
            data_type,
            segment,
            name,
            doc_string,
            external_data,
            data_location,
            metadata_props,
            // The data.
            raw_data: _,
            float_data: _,
            int32_data: _,
            string_data: _,
            int64_data: _,
            double_data: _,
            uint64_data: _,
        } = self;
        dims == &other.dims
            && data_type == &other.data_type
            && segment == &other.segment
            && name == &other.name
            && doc_string == &other.doc_string
            && external_data == &other.external_data
            && data_location == &other.data_location
            && metadata_props == &other.metadata_props
            && tensor::same_data(self, other)
    }

    fn compare(&self, other: &Self, walk: &mut Walk) {
        walk.field("dims", &self.dims, &other.dims);
        walk.field("data_type", &self.data_type, &other.data_type);
        walk.field("segment", &self.segment, &other.segment);
        walk.field("name", &self.name, &other.name);
        if !tensor::same_data(self, other) {
            tensor::compare_data(self, other, walk);
        }
        walk.field("doc_string", &self.doc_string, &other.doc_string);
        walk.field("external_data", &self.external_data, &other.external_data);
        walk.field("data_location", &self.data_location, &other.data_location);
        walk.field("metadata_props", &self.metadata_props, &other.metadata_props);
    }

    fn show(&self, _: &str) -> String {
        format!("{} {:?}", dtype_name(self.data_type()), self.dims)
    }

    fn key(&self) -> Option<String> {
        Some(self.name().to_owned())
    }
}

impl AttributeProto {
    /// What it holds, in a line.
    pub(crate) fn text(&self) -> String {
        if !self.ref_attr_name().is_empty() {
            return format!("the function's attribute {:?}", self.ref_attr_name());
        }
        let parts = [
            self.f.as_ref().map(|x| x.show("f")),
            self.i.as_ref().map(|n| n.show("i")),
            self.s.as_ref().map(|text| text.show("s")),
            self.t.as_ref().map(|tensor| tensor.show("t")),
            self.g.as_ref().map(|graph| graph.show("g")),
            self.sparse_tensor.as_ref().map(|tensor| tensor.show("sparse_tensor")),
            self.tp.as_ref().map(|of| of.show("tp")),
            (!self.floats.is_empty()).then(|| self.floats.show("floats")),
            (!self.ints.is_empty()).then(|| self.ints.show("ints")),
            (!self.strings.is_empty()).then(|| self.strings.show("strings")),
            (!self.tensors.is_empty()).then(|| self.tensors.show("tensors")),
            (!self.graphs.is_empty()).then(|| self.graphs.show("graphs")),
            (!self.sparse_tensors.is_empty()).then(|| self.sparse_tensors.show("sparse_tensors")),
            (!self.type_protos.is_empty()).then(|| self.type_protos.show("type_protos")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => format!("an empty {}", self.r#type.show("type")),
            false => parts.join(", "),
        }
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<&str> =
        names.iter().map(|name| if name.is_empty() { "\"\"" } else { name.as_str() }).collect();
    shown.join(", ")
}

fn list_of(entries: &[StringStringEntryProto]) -> String {
    entries.iter().map(|e| format!("{} = {}", e.key(), e.value())).collect::<Vec<_>>().join(", ")
}
