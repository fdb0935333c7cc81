//! How much is looked at: of all processes, and for a while all of one.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use super::{config::Detail, part::Part};

/// Whose calls probes are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Everybodys,
    /// The others run into nothing.
    Ones(NonZeroU32),
}

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Of all processes, until the daemon ends.
    Detail(Detail),
    /// All of one process, for so long.
    Trace { pid: NonZeroU32, span: Duration },
}

#[derive(Debug, Clone, Copy)]
pub struct Attention {
    detail: Detail,
    /// A process, and until when.
    traced: Option<(NonZeroU32, Instant)>,
}

impl Attention {
    pub const fn new(detail: Detail) -> Self {
        Self { detail, traced: None }
    }

    pub const fn detail(&self) -> Detail {
        self.detail
    }

    pub fn traced(&self) -> Option<NonZeroU32> {
        self.traced.map(|(pid, _)| pid)
    }

    /// When something ends by itself.
    pub fn ends(&self) -> Option<Instant> {
        self.traced.map(|(_, until)| until)
    }

    /// `None` for nobody's.
    pub fn whose(&self, part: Part) -> Option<Whose> {
        if part.is_of(self.detail) { Some(Whose::Everybodys) } else { self.traced().map(Whose::Ones) }
    }

    pub const fn is_off(&self) -> bool {
        matches!(self.detail, Detail::Off) && self.traced.is_none()
    }

    /// What is different from now on, in words.
    pub fn order(&mut self, order: Order, now: Instant) -> String {
        match order {
            Order::Detail(detail) => {
                let before = std::mem::replace(&mut self.detail, detail);
                // What is counted of one is counted of those it belongs together with, or of nobody.
                self.traced.take_if(|_| detail == Detail::Off);
                format!("`{}` was `{}`, by command", detail.as_str(), before.as_str())
            }
            Order::Trace { pid, span } => {
                self.traced = Some((pid, now + span));
                format!("all of process {pid}, by command, for {} s", span.as_secs())
            }
        }
    }

    /// The same of what has ended by itself, if something has.
    pub fn expire(&mut self, now: Instant) -> Option<String> {
        let (pid, _) = self.traced.take_if(|(_, until)| *until <= now)?;
        Some(format!("`{}` for process {pid} as for all, as its time is over", self.detail.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PID: NonZeroU32 = NonZeroU32::new(7).unwrap();

    #[track_caller]
    fn check(attention: &Attention, expect: [Option<Whose>; 3]) {
        assert_eq!([Part::Launches, Part::Steps, Part::Rest].map(|part| attention.whose(part)), expect);
    }

    #[test]
    fn one_process_is_looked_at_closely_for_a_while_and_the_others_as_before() {
        let (everybodys, ones) = (Some(Whose::Everybodys), Some(Whose::Ones(PID)));
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let mut attention = Attention::new(Detail::Sync);
        check(&attention, [None, everybodys, everybodys]);
        let said = attention.order(Order::Trace { pid: PID, span: Duration::from_secs(30) }, now);
        assert_eq!(said, "all of process 7, by command, for 30 s");
        check(&attention, [ones, everybodys, everybodys]);
        assert_eq!((attention.expire(later(29)), attention.ends()), (None, Some(later(30))));
        let said = attention.expire(later(30));
        assert_eq!(said.as_deref(), Some("`sync` for process 7 as for all, as its time is over"));
        check(&attention, [None, everybodys, everybodys]);
        assert_eq!(attention.expire(later(99)), None);
    }

    #[test]
    fn of_nobody_but_one_and_of_everybody() {
        let mut attention = Attention::new(Detail::Off);
        let now = Instant::now();
        assert!(attention.is_off());
        attention.order(Order::Trace { pid: PID, span: Duration::from_secs(30) }, now);
        assert!(!attention.is_off());
        check(&attention, [Some(Whose::Ones(PID)); 3]);
        assert_eq!(attention.order(Order::Detail(Detail::Full), now), "`full` was `off`, by command");
        check(&attention, [Some(Whose::Everybodys); 3]);
        // Off is off, whoever is traced.
        attention.order(Order::Detail(Detail::Off), now);
        assert!(attention.is_off());
    }
}
