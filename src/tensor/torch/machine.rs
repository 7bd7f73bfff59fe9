//! The pickle machine: a stack, marks and a memo over a flat list of values. Each instruction makes at most one value and
//! costs no more than what it takes off the stack, so work and memory are bounded by the pickle's length.

use std::collections::HashMap;

use super::archive::Archive;
use super::globals::{self, Element, Global};
use super::value::{Id, Storage, Value, Values};
use super::{Error, damaged, rebuild};

/// More tensors than any state dict has.
const MOST_TENSORS: usize = 1 << 17;
/// And more values: a tensor takes about 16.
const MOST_VALUES: usize = 16 * MOST_TENSORS;

/// Reads one pickle.
pub(super) struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    /// What it has made.
    pub values: Values<'a>,
    stack: Vec<Id>,
    /// How deep the stack was at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// How many tensors there were.
    tensors: usize,
    archive: Option<&'a Archive>,
    /// Storages that were spoken of, by their keys.
    storages: HashMap<String, Storage>,
}

impl<'a> Machine<'a> {
    /// A machine over a pickle; without an archive its tensors have no values.
    pub fn new(pickle: &'a [u8], archive: Option<&'a Archive>) -> Self {
        Self {
            pickle,
            at: 0,
            values: Values::new(pickle),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            tensors: 0,
            archive,
            storages: HashMap::new(),
        }
    }

    /// Runs to the first STOP; what is then on the stack.
    pub fn run(&mut self) -> Result<Id, Error> {
        loop {
            let code = self.byte()?;
            if code == b'.' {
                return self.pop();
            }
            self.step(code)?;
        }
    }

    /// How much of the pickle was read.
    pub fn read(&self) -> usize {
        self.at
    }

    fn step(&mut self, code: u8) -> Result<(), Error> {
        match code {
            // PROTO and FRAME say nothing that is needed.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => self.number::<4>().and_then(|n| self.push(Value::Int(i64::from(n as i32)))),
            b'K' => self.number::<1>().and_then(|n| self.push(Value::Int(n as i64))),
            b'M' => self.number::<2>().and_then(|n| self.push(Value::Int(n as i64))),
            b'G' => self.take(8).map(drop).and_then(|()| self.push(Value::Float)),
            b'I' | b'L' => self.decimal(),
            0x8a => self.long(),
            b'X' => self.number::<4>().and_then(|n| self.unicode(n)),
            0x8c => self.number::<1>().and_then(|n| self.unicode(n)),
            0x8d => self.number::<8>().and_then(|n| self.unicode(n)),
            b'U' | b'C' => self.number::<1>().and_then(|n| self.raw("bytes", n)),
            b'T' | b'B' => self.number::<4>().and_then(|n| self.raw("bytes", n)),
            0x8e => self.number::<8>().and_then(|n| self.raw("bytes", n)),
            0x96 => self.number::<8>().and_then(|n| self.raw("bytearray", n)),
            b')' => self.push(Value::Tuple([].into())),
            b']' => self.push(Value::List),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8f => self.push(Value::Other("set")),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b't' => self.since_mark().and_then(|items| self.push(Value::Tuple(items.into()))),
            0x85..=0x87 => self.short_tuple(usize::from(code - 0x84)),
            b'a' => self.pop().and_then(|_| self.must_be(|v| matches!(v, Value::List), "append to")),
            b'e' => {
                self.since_mark().and_then(|_| self.must_be(|v| matches!(v, Value::List), "append to"))
            }
            0x90 => self
                .since_mark()
                .and_then(|_| self.must_be(|v| matches!(v, Value::Other("set")), "add to")),
            0x91 => self.since_mark().and_then(|_| self.push(Value::Other("frozenset"))),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            b'u' => self.since_mark().and_then(|items| self.set(&items)),
            b'q' => self.number::<1>().and_then(|n| self.put(n)),
            b'r' => self.number::<4>().and_then(|n| self.put(n)),
            0x94 => self.put(self.memo.len() as u64),
            b'h' => self.number::<1>().and_then(|n| self.get(n)),
            b'j' => self.number::<4>().and_then(|n| self.get(n)),
            b'Q' => self.persistent(),
            _ => self.ask(code),
        }
    }

    /// Instructions that ask for something by name, or to run it.
    fn ask(&mut self, code: u8) -> Result<(), Error> {
        match code {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.values.text(module), self.values.text(name))
                else {
                    return Err(damaged("its pickle asks for a name that is not text"));
                };
                self.global(module, name)
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let value = rebuild::call(&self.values, function, arguments)?;
                self.push(value)
            }
            0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let value = rebuild::new(&self.values, class, arguments)?;
                self.push(value)
            }
            b'b' => {
                self.pop()?;
                // The state of an OrderedDict is `_metadata`, which no tensor needs.
                match self.values.get(self.top()?) {
                    Value::Dict(_) | Value::Other(_) => Ok(()),
                    _ => Err(Error::Unsafe { what: "code".into() }),
                }
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Err(Error::Unsafe { what: globals::called(module, name) })
            }
            b'o' | 0x92 => Err(Error::Unsafe { what: "code".into() }),
            0x82..=0x84 => {
                Err(Error::Unsafe { what: "code of copyreg's registry of extensions".into() })
            }
            other => Err(damaged(format!(
                "its pickle has the instruction 0x{other:02x}, which no state dict has"
            ))),
        }
    }

    /// Puts a new value on the stack.
    fn push(&mut self, value: Value) -> Result<(), Error> {
        self.tensors += usize::from(matches!(value, Value::Tensor(_)));
        if self.tensors > MOST_TENSORS || self.values.len() >= MOST_VALUES {
            return Err(damaged("its pickle makes more values than any state dict has"));
        }
        self.stack.push(self.values.push(value));
        Ok(())
    }

    /// Takes the last value off the stack, down to the last mark.
    fn pop(&mut self) -> Result<Id, Error> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(short),
            false => Err(short()),
        }
    }

    fn top(&self) -> Result<Id, Error> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(short)
    }

    /// What was pushed since the last mark.
    fn since_mark(&mut self) -> Result<Vec<Id>, Error> {
        let mark = self.marks.pop().ok_or_else(short)?;
        Ok(self.stack.split_off(mark))
    }

    fn short_tuple(&mut self, count: usize) -> Result<(), Error> {
        let mut items = vec![0; count];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        self.push(Value::Tuple(items.into()))
    }

    fn must_be(&self, is: impl Fn(&Value) -> bool, what: &str) -> Result<(), Error> {
        let top = self.values.get(self.top()?);
        match is(top) {
            true => Ok(()),
            false => Err(damaged(format!("its pickle asks to {what} a {}", top.type_name()))),
        }
    }

    /// Sets items of the dict on the stack: keys and values in turn.
    fn set(&mut self, items: &[Id]) -> Result<(), Error> {
        let top = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match self.values.get_mut(top) {
            _ if !rest.is_empty() => Err(damaged("its pickle has a key without a value")),
            Value::Dict(dict) => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            Value::Other("Counter") => Ok(()),
            other => Err(damaged(format!("its pickle asks to set an item of a {}", other.type_name()))),
        }
    }

    fn put(&mut self, place: u64) -> Result<(), Error> {
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn get(&mut self, place: u64) -> Result<(), Error> {
        let missing = || damaged(format!("its pickle asks for value {place} before it is there"));
        let id = self.memo.get(&place).copied().ok_or_else(missing)?;
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Error> {
        match globals::known(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(Error::Unsafe { what: globals::called(module, name) }),
        }
    }

    /// A storage: `("storage", class, key, device, count)`; where it was doesn't matter.
    fn persistent(&mut self) -> Result<(), Error> {
        let id = self.pop()?;
        let Some(archive) = self.archive else { return self.push(Value::Other("Storage")) };
        let refuse = || damaged("its pickle asks for a storage in a form that is not known");
        let Value::Tuple(parts) = self.values.get(id) else { return Err(refuse()) };
        let &[kind, class, key, device, count] = parts.as_ref() else { return Err(refuse()) };
        let (Some("storage"), Some(key), Some(_)) =
            (self.values.text(kind), self.values.text(key), self.values.text(device))
        else {
            return Err(refuse());
        };
        let (Value::Global(Global::Storage(element)), &Value::Int(count)) =
            (self.values.get(class), self.values.get(count))
        else {
            return Err(refuse());
        };
        let storage = self.storage(archive, element, key, count)?;
        self.push(Value::Storage(Box::new(storage)))
    }

    /// A part of this machine's file.
    fn storage(
        &mut self,
        archive: &Archive,
        element: &'static Element,
        key: &str,
        count: i64,
    ) -> Result<Storage, Error> {
        let called: String = key.escape_debug().take(80).collect();
        let size = usize::try_from(count).ok().and_then(|count| count.checked_mul(element.size));
        let size = size.ok_or_else(|| damaged(format!("its storage {called} has {count} elements")))?;
        if let Some(known) = self.storages.get(key) {
            return match known.element == element && known.bytes.len() == size {
                true => Ok(known.clone()),
                false => Err(damaged(format!("its pickle says two things of the storage {called}"))),
            };
        }
        let record = archive.record(&format!("data/{key}"));
        let record = record.ok_or_else(|| damaged(format!("its storage {called} is not there")))?;
        if size != record.len() {
            let has = record.len();
            return Err(damaged(format!(
                "its storage {called} is said to have {size} bytes and has {has}"
            )));
        }
        let storage = Storage { element, bytes: record };
        self.storages.insert(key.to_owned(), storage.clone());
        Ok(storage)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Error> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let bytes = end.and_then(|end| self.pickle.get(self.at..end));
        let bytes = bytes.ok_or_else(|| damaged("its pickle ends in the middle of something"))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A little-endian number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<u64, Error> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    fn line(&mut self) -> Result<&'a str, Error> {
        let rest = &self.pickle[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| damaged("its pickle ends in the middle of something"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| damaged("a name in its pickle is not UTF-8"))
    }

    fn unicode(&mut self, count: u64) -> Result<(), Error> {
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map_err(|_| damaged("a text in its pickle is not UTF-8"))?;
        self.push(Value::Text(self.at - bytes.len()..self.at))
    }

    fn raw(&mut self, kind: &'static str, count: u64) -> Result<(), Error> {
        self.take(count)?;
        self.push(Value::Other(kind))
    }

    /// A number in decimal digits, or the `00` and `01` of protocol 1 for false and true.
    fn decimal(&mut self) -> Result<(), Error> {
        let line = self.line()?;
        let number = |line: &str| line.trim_end_matches('L').parse().map(Value::Int);
        self.push(match line {
            "00" => Value::Bool(false),
            "01" => Value::Bool(true),
            line => {
                number(line).map_err(|_| damaged("a number in its pickle is not one, or too long"))?
            }
        })
    }

    /// A little-endian number in two's complement, of up to 255 bytes.
    fn long(&mut self) -> Result<(), Error> {
        let count = self.number::<1>()?;
        let bytes = self.take(count)?;
        let fill = if bytes.last().is_some_and(|&last| last >= 0x80) { 0xff } else { 0 };
        let mut whole = [fill; 8];
        match bytes.len() <= 8 {
            true => whole[..bytes.len()].copy_from_slice(bytes),
            // Wider than anything that counts elements.
            false => return self.push(Value::Other("int")),
        }
        self.push(Value::Int(i64::from_le_bytes(whole)))
    }
}

fn short() -> Error {
    damaged("its pickle takes more than it has put down")
}
