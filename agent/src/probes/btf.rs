//! A small walker over the kernel's own type information: at which byte a field lies, which functions exist.
//!
//! The format is Documentation/bpf/btf.rst of the kernel: a header, then type records, then strings. aya keeps its
//! own parser's members private, so this one reads what we need and nothing else: structs and unions with their
//! members (anonymous ones are descended into), typedefs and qualifiers on the way, functions with their parameter
//! counts. It reads a file that the kernel wrote, and still trusts no length in it.

use std::collections::HashMap;

use thiserror::Error;

/// Where the running kernel keeps its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_TYPE_TAG: u32 = 18;

/// Anonymous members nest a few levels at most; a deeper chain is a damaged file.
const MAX_DEPTH: u32 = 16;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    #[error("BTF is damaged: {0}")]
    Damaged(&'static str),
    #[error("BTF has a type of unknown kind {0}")]
    UnknownKind(u32),
    #[error("the kernel has no struct {0}")]
    NoStruct(String),
    #[error("the kernel's struct {0} has no member {1}")]
    NoMember(String, String),
    #[error("member {1} of struct {0} is a bit field")]
    BitField(String, String),
}

/// Parsed type information; owns its bytes.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Byte position of each type record, by id (id 0 is `void`).
    records: Vec<usize>,
    structs: HashMap<Vec<u8>, u32>,
    functions: HashMap<Vec<u8>, u32>,
    typedefs: HashMap<Vec<u8>, u32>,
}

impl Btf {
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let word = |at: usize| read_u32(&bytes, at);
        let magic = bytes.get(..2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]]));
        if magic != Some(MAGIC) {
            return Err(BtfError::Damaged("no magic number"));
        }
        let header = word(4)? as usize;
        let types = header + word(8)? as usize;
        let types_end = types + word(12)? as usize;
        let strings = header + word(16)? as usize;
        if types_end > bytes.len() || strings > bytes.len() {
            return Err(BtfError::Damaged("a section lies behind the end"));
        }

        let mut btf = Self {
            strings,
            records: vec![usize::MAX],
            structs: HashMap::new(),
            functions: HashMap::new(),
            typedefs: HashMap::new(),
            bytes: Vec::new(),
        };
        let mut named = Vec::new();
        let mut at = types;
        while at < types_end {
            let info = read_u32(&bytes, at + 4)?;
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let id = u32::try_from(btf.records.len()).map_err(|_| BtfError::Damaged("too many types"))?;
            btf.records.push(at);
            if matches!(kind, KIND_STRUCT | KIND_UNION | KIND_FUNC | KIND_TYPEDEF) {
                named.push((kind, read_u32(&bytes, at)?, id));
            }
            at += 12
                + match kind {
                    // INT, VAR, DECL_TAG: one word behind.
                    1 | 14 | 17 => 4,
                    // ARRAY: three.
                    3 => 12,
                    // STRUCT, UNION, DATASEC, ENUM64: three per member.
                    4 | 5 | 15 | 19 => count * 12,
                    // ENUM, FUNC_PROTO: two per member.
                    6 | 13 => count * 8,
                    2 | 7..=12 | 16 | 18 => 0,
                    unknown => return Err(BtfError::UnknownKind(unknown)),
                };
        }
        btf.bytes = bytes;
        for (kind, name, id) in named {
            let name = btf.string(name)?.to_vec();
            let table = match kind {
                KIND_FUNC => &mut btf.functions,
                KIND_TYPEDEF => &mut btf.typedefs,
                _ => &mut btf.structs,
            };
            // Several types may share a name; the first is vmlinux's own.
            table.entry(name).or_insert(id);
        }
        Ok(btf)
    }

    /// The byte offset of a member, by a dotted path (`f_path.mnt`), through anonymous structs and unions.
    pub fn member_offset(&self, of: &str, path: &str) -> Result<u32, BtfError> {
        let mut id = *self.structs.get(of.as_bytes()).ok_or_else(|| BtfError::NoStruct(of.to_owned()))?;
        let mut bits = 0;
        for name in path.split('.') {
            let (member_bits, member_type) = self
                .member(id, name.as_bytes(), 0)?
                .ok_or_else(|| BtfError::NoMember(of.to_owned(), path.to_owned()))?;
            bits += member_bits;
            id = member_type;
        }
        if bits % 8 != 0 {
            return Err(BtfError::BitField(of.to_owned(), path.to_owned()));
        }
        Ok(bits / 8)
    }

    /// How many parameters the function takes, or `None` when the kernel has no such function.
    pub fn parameters(&self, function: &str) -> Option<usize> {
        let id = *self.functions.get(function.as_bytes())?;
        let proto = self.word(id, 8).ok()?;
        let info = self.word(proto, 4).ok()?;
        (kind_of(info) == KIND_FUNC_PROTO).then_some((info & 0xffff) as usize)
    }

    /// Bytes of a struct; `None` where there is none of this name.
    pub fn size(&self, of: &str) -> Option<u32> {
        self.word(*self.structs.get(of.as_bytes())?, 8).ok()
    }

    /// How many arguments a BTF tracepoint hands over, from the typedef `btf_trace_<name>`; `None` without it.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedef = *self.typedefs.get(format!("btf_trace_{name}").as_bytes())?;
        let pointer = self.word(typedef, 8).ok()?;
        if kind_of(self.word(pointer, 4).ok()?) != KIND_PTR {
            return None;
        }
        let info = self.word(self.word(pointer, 8).ok()?, 4).ok()?;
        // The first parameter is the kernel's own `void *__data`.
        (kind_of(info) == KIND_FUNC_PROTO).then(|| ((info & 0xffff) as usize).saturating_sub(1))
    }

    /// Finds `name` in struct or union `id`: offset in bits and type of the member.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Result<Option<(u32, u32)>, BtfError> {
        if depth > MAX_DEPTH {
            return Err(BtfError::Damaged("members nest without end"));
        }
        let id = self.resolve(id)?;
        let info = self.word(id, 4)?;
        if !matches!(kind_of(info), KIND_STRUCT | KIND_UNION) {
            return Ok(None);
        }
        // With the flag the upper byte is a bit field's width.
        let offset_mask = if info >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
        for index in 0..(info & 0xffff) as usize {
            let at = 12 + index * 12;
            let member_name = self.string(self.word(id, at)?)?;
            let member_type = self.word(id, at + 4)?;
            let bits = self.word(id, at + 8)? & offset_mask;
            if member_name == name {
                return Ok(Some((bits, member_type)));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.member(member_type, name, depth + 1)?
            {
                return Ok(Some((bits + inner, found)));
            }
        }
        Ok(None)
    }

    /// Follows typedefs and qualifiers to the type behind.
    fn resolve(&self, mut id: u32) -> Result<u32, BtfError> {
        for _ in 0..MAX_DEPTH {
            match kind_of(self.word(id, 4)?) {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => id = self.word(id, 8)?,
                _ => return Ok(id),
            }
        }
        Err(BtfError::Damaged("typedefs without end"))
    }

    fn word(&self, id: u32, offset: usize) -> Result<u32, BtfError> {
        let record = self.records.get(id as usize).copied().filter(|&at| at != usize::MAX);
        read_u32(&self.bytes, record.ok_or(BtfError::Damaged("a type id that is not there"))? + offset)
    }

    fn string(&self, offset: u32) -> Result<&[u8], BtfError> {
        let tail =
            self.bytes.get(self.strings + offset as usize..).ok_or(BtfError::Damaged("a name behind the end"))?;
        let end = tail.iter().position(|&byte| byte == 0).ok_or(BtfError::Damaged("a name without end"))?;
        Ok(&tail[..end])
    }
}

fn kind_of(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn read_u32(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = bytes.get(at..at + 4).ok_or(BtfError::Damaged("a record behind the end"))?;
    Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `struct outer { int a; struct { union { int b; int c; }; }; struct inner in; const alias x; }` and a function.
    fn blob() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0c\0inner\0deep\0in\0f\0btf_trace_t\0";
        let name = |text: &str| {
            let needle = [text.as_bytes(), &[0]].concat();
            strings.windows(needle.len()).position(|window| window == needle).map(word).unwrap()
        };
        let mut types: Vec<u32> = Vec::new();
        types.extend([name("int"), 1 << 24, 4, 32]); // 1: int
        types.extend([0, (KIND_UNION << 24) | 2, 4, name("b"), 1, 0, name("c"), 1, 0]); // 2
        types.extend([0, (KIND_STRUCT << 24) | 1, 8, 0, 2, 32]); // 3: anonymous, union at byte 4
        types.extend([name("inner"), (KIND_STRUCT << 24) | 1, 8, name("deep"), 1, 32]); // 4
        types.extend([0, KIND_CONST << 24, 4]); // 5: const inner
        types.extend([name("outer"), (KIND_STRUCT << 24) | 3, 64, name("a"), 1, 0, 0, 3, 64, name("in"), 5, 256]); // 6
        types.extend([0, (KIND_FUNC_PROTO << 24) | 2, 1, 0, 1, 0, 1]); // 7
        types.extend([name("f"), KIND_FUNC << 24, 7]); // 8
        types.extend([0, KIND_PTR << 24, 7]); // 9
        types.extend([name("btf_trace_t"), KIND_TYPEDEF << 24, 9]); // 10
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for length in [24, 0, types.len(), types.len(), strings.len()] {
            bytes.extend(word(length).to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend_from_slice(strings);
        bytes
    }

    fn word(number: usize) -> u32 {
        u32::try_from(number).unwrap()
    }

    fn check(of: &str, path: &str, expect: &Result<u32, BtfError>) {
        assert_eq!(Btf::parse(blob()).unwrap().member_offset(of, path), *expect, "{of}.{path}");
    }

    #[test]
    fn members_are_found_through_anonymous_unions_and_qualified_structs() {
        check("outer", "a", &Ok(0));
        check("outer", "b", &Ok(12));
        check("outer", "c", &Ok(12));
        check("outer", "in", &Ok(32));
        check("outer", "in.deep", &Ok(36));
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        check("nowhere", "a", &Err(BtfError::NoStruct("nowhere".into())));
        check("outer", "in.absent", &Err(BtfError::NoMember("outer".into(), "in.absent".into())));
    }

    #[test]
    fn functions_and_tracepoints_tell_their_argument_counts() {
        let btf = Btf::parse(blob()).unwrap();
        assert_eq!(btf.parameters("f"), Some(2));
        assert_eq!(btf.parameters("g"), None);
        assert_eq!(btf.tracepoint_arguments("t"), Some(1));
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(at in 0usize..400, byte: u8, cut in 0usize..500) {
            let mut bytes = blob();
            let end = bytes.len();
            bytes[at % end] = byte;
            bytes.truncate(cut.min(end));
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = btf.member_offset("outer", "in.deep");
                let _ = btf.tracepoint_arguments("t");
            }
        }
    }
}
