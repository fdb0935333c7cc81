//! The table of NCCL's functions. Names and parameters are those of `nccl.h` 2.30; every `ncclX` is also `pncclX`, at the same address.

use plumbline_ebpf::nccl::{Action, Cookie, PLACES, Place};

use super::{super::part::Part, place::Machine};

/// One row.
#[derive(Debug)]
pub struct Function {
    /// The label `function`.
    pub name: &'static str,
    pub symbol: &'static str,
    pub action: Action,
    /// Numbers of the parameters that [`Action`] needs, counted from 0.
    parameters: &'static [u8],
    /// The parameter that is a `ncclUniqueId`.
    id: Option<u8>,
}

const fn row(name: &'static str, symbol: &'static str, action: Action, parameters: &'static [u8]) -> Function {
    Function { name, symbol, action, parameters, id: None }
}

const fn with_id(name: &'static str, symbol: &'static str) -> Function {
    Function { name, symbol, action: Action::InitByValue, parameters: &[0, 1, 3, 2], id: Some(2) }
}

/// The number of a row is the function's number in the kernel. `ncclBcast` has none: it calls `ncclBroadcast`.
pub static FUNCTIONS: &[Function] = &[
    with_id("init", "ncclCommInitRank"),
    with_id("init", "ncclCommInitRankConfig"),
    row("init", "ncclCommInitRankScalable", Action::InitByPointer, &[0, 1, 2, 4]),
    row("init", "ncclCommInitAll", Action::InitAll, &[0, 1]),
    row("split", "ncclCommSplit", Action::Split, &[3, 0, 1, 2]),
    row("shrink", "ncclCommShrink", Action::Shrink, &[3, 0, 1, 2]),
    row("grow", "ncclCommGrow", Action::Grow, &[4, 0, 1, 3]),
    row("destroy", "ncclCommDestroy", Action::End, &[0]),
    row("abort", "ncclCommAbort", Action::End, &[0]),
    row("all_reduce", "ncclAllReduce", Action::Collective, &[5, 2, 3, 6]),
    row("reduce_scatter", "ncclReduceScatter", Action::Collective, &[5, 2, 3, 6]),
    row("all_gather", "ncclAllGather", Action::Collective, &[4, 2, 3, 5]),
    row("all_to_all", "ncclAlltoAll", Action::Collective, &[4, 2, 3, 5]),
    row("broadcast", "ncclBroadcast", Action::Collective, &[5, 2, 3, 6]),
    row("gather", "ncclGather", Action::Collective, &[5, 2, 3, 6]),
    row("scatter", "ncclScatter", Action::Collective, &[5, 2, 3, 6]),
    row("reduce", "ncclReduce", Action::Collective, &[6, 2, 3, 7]),
    row("send", "ncclSend", Action::PointToPoint, &[4, 1, 2, 5]),
    row("recv", "ncclRecv", Action::PointToPoint, &[4, 1, 2, 5]),
    row("group_start", "ncclGroupStart", Action::GroupStart, &[]),
    row("group_end", "ncclGroupEnd", Action::GroupEnd, &[]),
    row("user_rank", "ncclCommUserRank", Action::TellRank, &[0, 1]),
    row("count", "ncclCommCount", Action::TellRanks, &[0, 1]),
    row("async_error", "ncclCommGetAsyncError", Action::TellError, &[0, 1]),
];

impl Function {
    pub fn numbered() -> impl Iterator<Item = (u8, &'static Self)> {
        (0..).zip(FUNCTIONS)
    }

    /// Whether calls of it move something.
    pub const fn is_traffic(&self) -> bool {
        matches!(self.action, Action::Collective | Action::PointToPoint)
    }

    /// Members are compared by how many collectives each has called: none of them may be missed. What NCCL says when it is asked for errors,
    /// as its own functions do each time, is as good now and then.
    pub const fn part(&self) -> Part {
        if matches!(self.action, Action::TellError) { Part::Steps } else { Part::Rest }
    }

    /// Whether a communicator begins with it.
    pub const fn is_init(&self) -> bool {
        matches!(self.action, Action::InitByValue | Action::InitByPointer | Action::InitAll)
    }

    pub fn cookie(&self, number: u8, machine: Machine) -> Cookie {
        let mut places = [Place::Nowhere; PLACES];
        for (place, parameter) in places.iter_mut().zip(self.parameters) {
            *place = machine.place(*parameter, self.id);
        }
        let by_pointer = self.id.is_some() && machine.passes_structures_by_pointer();
        Cookie::new(number, if by_pointer { Action::InitByPointer } else { self.action }, places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `docs` of the calling conventions have it: registers by their number, `s0` the first word of the stack.
    #[track_caller]
    fn check(symbol: &str, x86_64: &str, arm64: &str) {
        let (number, function) = Function::numbered().find(|(_, function)| function.symbol == symbol).expect("a row");
        let words = |machine| {
            let cookie = function.cookie(number, machine);
            let places = (0..4).map(|at| match Place::from_bits(cookie.place(at)) {
                Place::Register(number) => number.to_string(),
                Place::Stack(word) => format!("s{word}"),
                Place::Nowhere => "-".to_owned(),
            });
            places.collect::<Vec<_>>().join(" ")
        };
        assert_eq!((words(Machine::X86_64).as_str(), words(Machine::Arm64).as_str()), (x86_64, arm64), "{symbol}");
    }

    #[test]
    fn what_matters_is_where_the_calling_conventions_put_it() {
        // Handle, ranks, rank, id.
        check("ncclCommInitRank", "0 1 2 s0", "0 1 3 2");
        check("ncclCommInitRankConfig", "0 1 2 s0", "0 1 3 2");
        check("ncclCommInitRankScalable", "0 1 2 4", "0 1 2 4");
        // Communicator, count, data type, stream.
        check("ncclAllReduce", "5 2 3 s0", "5 2 3 6");
        check("ncclReduceScatter", "5 2 3 s0", "5 2 3 6");
        check("ncclAllGather", "4 2 3 5", "4 2 3 5");
        check("ncclAlltoAll", "4 2 3 5", "4 2 3 5");
        check("ncclBroadcast", "5 2 3 s0", "5 2 3 6");
        check("ncclGather", "5 2 3 s0", "5 2 3 6");
        check("ncclScatter", "5 2 3 s0", "5 2 3 6");
        check("ncclReduce", "s0 2 3 s1", "6 2 3 7");
        check("ncclSend", "4 1 2 5", "4 1 2 5");
        check("ncclRecv", "4 1 2 5", "4 1 2 5");
        // New handle, parent, and what says who is in it.
        check("ncclCommSplit", "3 0 1 2", "3 0 1 2");
        check("ncclCommShrink", "3 0 1 2", "3 0 1 2");
        check("ncclCommGrow", "4 0 1 3", "4 0 1 3");
        // Communicator, answer.
        check("ncclCommUserRank", "0 1 - -", "0 1 - -");
        check("ncclCommCount", "0 1 - -", "0 1 - -");
        check("ncclCommGetAsyncError", "0 1 - -", "0 1 - -");
    }

    #[test]
    fn the_id_is_a_pointer_on_arm64() {
        let (number, function) = Function::numbered().next().expect("a row");
        assert_eq!(function.cookie(number, Machine::X86_64).action, Action::InitByValue as u8);
        assert_eq!(function.cookie(number, Machine::Arm64).action, Action::InitByPointer as u8);
    }
}
