//! Streams a protobuf message to a writer: prost encodes into a buffer, and this buffer is a file.

use std::io::{self, Write};

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut};
use prost::Message;

const BLOCK: usize = 1 << 16;

/// A `BufMut` that empties itself into a writer, so that a model of any size is saved without a
/// second copy of it in memory. The first error is kept and ends all writing.
struct Stream<W> {
    to: W,
    block: Vec<u8>,
    failed: Option<io::Error>,
}

impl<W: Write> Stream<W> {
    fn send(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.to.write_all(bytes).err();
        }
    }

    fn drain(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.send(&block);
        self.block = block;
        self.block.clear();
    }
}

// SAFETY: `chunk_mut` hands out the spare capacity of `block`, never empty after the drain, and
// `advance_mut` is passed straight to `Vec<u8>`'s own implementation, which checks it.
#[allow(unsafe_code)]
unsafe impl<W: Write> BufMut for Stream<W> {
    fn remaining_mut(&self) -> usize {
        usize::MAX
    }

    unsafe fn advance_mut(&mut self, n: usize) {
        // SAFETY: the caller vouches that `n` bytes of the last `chunk_mut` were written.
        unsafe { self.block.advance_mut(n) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        if self.block.len() == self.block.capacity() {
            self.drain();
        }
        self.block.spare_capacity_mut().into()
    }

    fn put<T: Buf>(&mut self, mut from: T) {
        while from.has_remaining() {
            let part = from.chunk();
            let n = part.len();
            self.put_slice(part);
            from.advance(n);
        }
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        if self.block.len() + bytes.len() > self.block.capacity() {
            self.drain();
        }
        if bytes.len() >= BLOCK {
            self.send(bytes);
        } else {
            self.block.extend_from_slice(bytes);
        }
    }
}

/// Writes a message as protobuf.
///
/// # Errors
/// The first error of the writer.
pub(super) fn stream(message: &impl Message, to: impl Write) -> io::Result<()> {
    let mut stream = Stream { to, block: Vec::with_capacity(BLOCK), failed: None };
    message.encode(&mut stream).map_err(io::Error::other)?;
    stream.drain();
    stream.to.flush()?;
    stream.failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::proto::{GraphProto, ModelProto, TensorProto};

    #[test]
    fn equals_the_buffered_encoding() {
        let sizes = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK];
        let initializer = sizes
            .iter()
            .map(|&n| TensorProto { raw_data: Some(vec![n as u8; n].into()), ..Default::default() })
            .collect();
        let graph =
            GraphProto { initializer, doc_string: Some("x".repeat(BLOCK)), ..Default::default() };
        let model = ModelProto { graph: Some(graph), ..Default::default() };
        let mut streamed = Vec::new();
        stream(&model, &mut streamed).unwrap();
        assert_eq!(streamed, model.encode_to_vec());
    }

    #[test]
    fn a_full_disk_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let model = ModelProto { doc_string: Some("x".repeat(9 * BLOCK)), ..Default::default() };
        assert_eq!(stream(&model, Full).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
