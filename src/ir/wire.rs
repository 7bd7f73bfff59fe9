//! Fields that no known ONNX version has, found in a file's own bytes: to decode drops them, so a
//! rewrite would lose them. How a known field is written is not a loss: lists of numbers may be packed or
//! not, as protobuf's readers must take both.

use super::fields::MESSAGES;

/// What a file has that this version of ONNX doesn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFields {
    /// The message of the first, by path: `graph.node[3].attribute[0]`, or empty for the model.
    pub message: String,
    /// The field number of the first.
    pub number: u32,
    /// How many there are.
    pub count: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl std::fmt::Display for UnknownFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.message.as_str() {
            "" => f.write_str("the model")?,
            message => f.write_str(message)?,
        }
        write!(f, " has field {}, which no known version of ONNX has", self.number)?;
        match self.count {
            1 => write!(f, " ({} bytes)", self.bytes),
            count => write!(f, " ({count} such fields, {} bytes)", self.bytes),
        }
    }
}

/// The unknown fields of a model, of bytes that were decoded.
pub(super) fn unknown_fields(bytes: &[u8]) -> Option<UnknownFields> {
    let model = MESSAGES.iter().position(|(name, _)| *name == "ModelProto").expect("the root");
    let mut walk = Walk::default();
    walk.message(bytes, model);
    walk.unknown
}

#[derive(Default)]
struct Walk {
    path: Vec<(&'static str, Option<usize>)>,
    unknown: Option<UnknownFields>,
}

impl Walk {
    fn message(&mut self, mut bytes: &[u8], kind: usize) {
        let fields = MESSAGES[kind].1;
        let mut counts = vec![0usize; fields.len()];
        while !bytes.is_empty() {
            let start = bytes;
            let content = field(&mut bytes);
            let Some((number, content)) = content else {
                // Decoding would have failed: nothing more to see.
                return self.note(0, start.len());
            };
            let Ok(at) = fields.binary_search_by_key(&number, |field| field.0) else {
                self.note(number, start.len() - bytes.len());
                continue;
            };
            let (_, name, repeated, inner) = fields[at];
            if let Some(inner) = inner {
                self.path.push((name, repeated.then_some(counts[at])));
                self.message(content, inner);
                self.path.pop();
            }
            counts[at] += 1;
        }
    }

    fn note(&mut self, number: u32, bytes: usize) {
        let path = &self.path;
        let fields = self.unknown.get_or_insert_with(|| {
            let parts: Vec<String> = path
                .iter()
                .map(|(name, at)| at.map_or((*name).to_owned(), |at| format!("{name}[{at}]")))
                .collect();
            UnknownFields { message: parts.join("."), number, count: 0, bytes: 0 }
        });
        fields.count += 1;
        fields.bytes += bytes;
    }
}

/// Takes a field off: its number, and its bytes where it is delimited by its length.
fn field<'b>(bytes: &mut &'b [u8]) -> Option<(u32, &'b [u8])> {
    let key = varint(bytes)?;
    let number = u32::try_from(key >> 3).ok()?;
    let empty = &bytes[..0];
    let content = match key & 7 {
        0 => varint(bytes).map(|_| empty)?,
        1 => take(bytes, 8).map(|_| empty)?,
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            take(bytes, length)?
        }
        3 => group(bytes, number).map(|()| empty)?,
        5 => take(bytes, 4).map(|_| empty)?,
        _ => return None,
    };
    Some((number, content))
}

/// Takes the rest of a group off, and of the groups within it.
fn group(bytes: &mut &[u8], number: u32) -> Option<()> {
    let mut open = vec![number];
    while let Some(&last) = open.last() {
        let mut ahead = *bytes;
        let key = varint(&mut ahead)?;
        let number = u32::try_from(key >> 3).ok()?;
        match key & 7 {
            3 => {
                *bytes = ahead;
                open.push(number);
            }
            4 if number == last => {
                *bytes = ahead;
                open.pop();
            }
            4 => return None,
            _ => drop(field(bytes)?),
        }
    }
    Some(())
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
