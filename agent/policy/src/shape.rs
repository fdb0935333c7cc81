//! The grammar as data: which mappings the language has, which fields each may hold, and what a field means.
//!
//! Each concept keeps its own table beside its reader (`subject`, `object/*`, `policy`). From these tables come the
//! readers' list of known fields (`fields`), the JSON Schema for editors (`schema`) and the reference page
//! `docs/policy-reference.md`; so a field that is read is a field that is described.

/// One mapping.
#[derive(Debug)]
pub(crate) struct Shape {
    /// With its article, for messages: "a rule".
    pub(crate) what: &'static str,
    pub(crate) about: &'static str,
    /// Groups of fields, so that mappings can share some.
    pub(crate) fields: &'static [&'static [Field]],
}

/// One field of a mapping.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) holds: Holds,
    pub(crate) is_required: bool,
    pub(crate) about: &'static str,
}

/// What a field may hold. Where several texts may stand, `$name` puts a list in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holds {
    Text,
    /// Lower-case letters, digits, hyphens.
    Name,
    Bool,
    /// `30s`, `5m`, `1h`.
    Duration,
    /// One whole number of this range.
    Integer(u64, u64),
    /// One whole number of this range or a list of them.
    Integers(u64, u64),
    /// One text or a list of them.
    Texts,
    /// A list of texts.
    TextList,
    /// One word of a closed set.
    Word(fn() -> Vec<&'static str>),
    /// One word of a closed set or a list of them.
    Words(fn() -> Vec<&'static str>),
    /// One port or range of ports, or a list of them.
    Ports,
    /// A mapping of names to one value or a list of them.
    Labels,
    /// A mapping of names to lists.
    Lists,
    /// A network, an address, a name of a host, or a list of them.
    Destinations,
    One(&'static Shape),
    /// A mapping with exactly one field.
    ExactlyOne(&'static Shape),
    /// A list of mappings.
    Many(&'static Shape),
    /// One mapping or a list of them.
    OneOrMany(&'static Shape),
    /// A list of texts, or a mapping.
    TextListOr(&'static Shape),
}

impl Shape {
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().copied().flatten()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields().map(|field| field.name)
    }
}

/// A field that may be left out.
pub(crate) const fn optional(name: &'static str, holds: Holds, about: &'static str) -> Field {
    Field { name, holds, is_required: false, about }
}

/// A field without which the mapping is a mistake.
pub(crate) const fn required(name: &'static str, holds: Holds, about: &'static str) -> Field {
    Field { name, holds, is_required: true, about }
}

/// A closed set of words, and what each means to the program.
pub(crate) trait Words: Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::WORDS.iter().find(|(_, meaning)| *meaning == self).map_or("", |(word, _)| word)
    }
}

/// The words of `T`, for [`Holds::Word`].
pub(crate) fn words<T: Words>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}
