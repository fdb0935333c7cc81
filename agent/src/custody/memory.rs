//! Keeping secrets out of swap and core dumps: the epoch's key exists in this process's memory and nowhere else.

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, set_dumpable_behavior},
};

/// Locks all memory of this process as it is used, and switches core dumps off. In words, how that went: a reviewer
/// finds it in the start record.
pub fn protect() -> String {
    // ONFAULT: what is never touched (stacks reserved, tables mapped) costs nothing.
    let locked = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    match (locked, undumpable) {
        (Ok(()), Ok(())) => "locked, not dumpable".to_owned(),
        (Err(error), Ok(())) => format!("not locked ({error}), not dumpable"),
        (Ok(()), Err(error)) => format!("locked, dumpable ({error})"),
        (Err(locked), Err(dumpable)) => format!("not locked ({locked}), dumpable ({dumpable})"),
    }
}
