//! Which container has which GPU, as it is told to whoever names GPUs: [`holders`](crate::holders) finds out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

/// A GPU by its UUID, and a GPU instance of it.
pub type Part = (String, Option<u32>);

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Kubelet,
    Processes,
}

impl Source {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::Processes => "processes",
        }
    }
}

/// Who has what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held(BTreeMap<Part, BTreeSet<(Source, Holder)>>);

impl Held {
    pub const fn new(all: BTreeMap<Part, BTreeSet<(Source, Holder)>>) -> Self {
        Self(all)
    }

    /// Who alone has this part: of whom the kubelet says so, and else of whose processes run there.
    pub fn sole(&self, part: &Part) -> Option<&Holder> {
        let all = self.0.get(part)?;
        let (first, _) = all.first()?;
        let mut of_first = all.iter().filter(|(source, _)| source == first).map(|(_, holder)| holder);
        let sole = of_first.next()?;
        of_first.next().is_none().then_some(sole)
    }

    /// Everybody who has the GPU or an instance of it.
    pub fn of(&self, uuid: &str) -> impl Iterator<Item = Holding<'_>> {
        let parts = self.0.iter().filter(move |((of, _), _)| of == uuid);
        parts.flat_map(|((_, instance), all)| {
            all.iter().map(|(source, holder)| Holding { instance: *instance, source: *source, holder })
        })
    }
}

/// Who has a GPU or an instance of it, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding<'a> {
    pub instance: Option<u32>,
    pub source: Source,
    pub holder: &'a Holder,
}

impl fmt::Display for Holding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { namespace, pod, container } = self.holder;
        write!(f, "{namespace}/{pod}/{container} ({}", self.source.as_str())?;
        match self.instance {
            Some(instance) => write!(f, ", instance {instance})"),
            None => f.write_str(")"),
        }
    }
}
