//! Lineage and cgroups, told as short histories.

use super::*;
use crate::event::{Exec, Exit, Fork};

/// A `/proc` that knows what it is told.
#[derive(Default)]
struct Told(HashMap<u32, Seen>);

impl Processes for Told {
    fn look(&self, pid: u32, start_boot_ns: u64) -> Option<Seen> {
        self.0.get(&pid).filter(|seen| start_boot_ns == 0 || seen.start_boot_ns == start_boot_ns).cloned()
    }

    fn cgroup(&self, id: u64) -> Option<Cgroup> {
        (id == 77).then(|| Cgroup { path: b"/found-by-id".to_vec(), ..Cgroup::default() })
    }
}

fn task(pid: u32, ppid: u32, start_boot_ns: u64) -> Task {
    Task { pid, tid: pid, ppid, start_boot_ns, comm: format!("p{pid}").into_bytes(), ..Task::default() }
}

fn event(boot_ns: u64, task: Task, what: What) -> Event {
    Event { boot_ns, origin: None, task: Some(task), what }
}

fn exec(path: &str) -> What {
    What::Exec(Exec { exe: path.as_bytes().to_vec(), ..Exec::default() })
}

fn lineage(identity: &Identity) -> String {
    let name = |process: &Process| process.exe.as_deref().map_or("?".into(), String::from_utf8_lossy).into_owned();
    std::iter::once(&identity.process).chain(&identity.ancestors).map(name).collect::<Vec<_>>().join(" < ")
}

#[test]
fn a_child_that_is_gone_before_anybody_looked_still_has_its_lineage() {
    let (mut world, proc) = (World::default(), Told::default());
    world.identify(&event(10, task(1, 0, 0), exec("/sbin/init")), &proc);
    world.identify(&event(20, task(1, 0, 0), What::Fork(Fork { child_pid: 2, child_start_boot_ns: 20 })), &proc);
    world.identify(&event(21, task(2, 1, 20), exec("/bin/sh")), &proc);
    world.identify(&event(22, task(2, 1, 20), What::Fork(Fork { child_pid: 3, child_start_boot_ns: 22 })), &proc);
    let identity = world.identify(&event(23, task(3, 2, 22), exec("/bin/cat")), &proc).unwrap();
    assert_eq!(lineage(&identity), "/bin/cat < /bin/sh < /sbin/init");
}

#[test]
fn a_number_used_again_is_another_process() {
    let (mut world, proc) = (World::default(), Told::default());
    world.identify(&event(10, task(7, 0, 10), exec("/old")), &proc);
    world.identify(&event(11, task(7, 0, 10), What::Exit(Exit { code: 0 })), &proc);
    let identity = world.identify(&event(20, task(7, 0, 20), What::Exit(Exit { code: 0 })), &proc).unwrap();
    assert_eq!(lineage(&identity), "?");
}

#[test]
fn a_younger_parent_is_no_parent() {
    let (mut world, proc) = (World::default(), Told::default());
    world.identify(&event(50, task(2, 0, 50), exec("/late")), &proc);
    let identity = world.identify(&event(60, task(3, 2, 20), exec("/early")), &proc).unwrap();
    assert_eq!(lineage(&identity), "/early");
}

#[test]
fn the_dead_are_kept_for_a_while_and_then_leave() {
    let (mut world, proc) = (World::default(), Told::default());
    world.identify(&event(10, task(7, 0, 10), exec("/x")), &proc);
    world.identify(&event(11, task(7, 0, 10), What::Exit(Exit { code: 0 })), &proc);
    world.identify(&event(12, task(8, 0, 12), exec("/y")), &proc);
    assert_eq!(world.len(), 2);
    world.identify(&event(12 + KEEP_DEAD_NS, task(8, 0, 12), exec("/y")), &proc);
    assert_eq!(world.len(), 1);
}

#[test]
fn a_process_that_moved_to_another_cgroup_is_looked_at_again() {
    let (mut world, mut proc) = (World::default(), Told::default());
    let cgroup = |path: &str| Cgroup { path: path.as_bytes().to_vec(), ..Cgroup::default() };
    let seen = |path| Seen { start_boot_ns: 10, cgroup: Some(cgroup(path)), ..Seen::default() };
    proc.0.insert(7, seen("/before"));
    let in_cgroup = |cgroup_id| Task { cgroup_id, ..task(7, 0, 10) };
    world.identify(&event(10, in_cgroup(1), exec("/x")), &proc);
    proc.0.insert(7, seen("/after"));
    let same = world.identify(&event(11, in_cgroup(1), What::Exit(Exit { code: 0 })), &proc).unwrap();
    assert_eq!(same.process.cgroup, Some(cgroup("/before")));
    let moved = world.identify(&event(12, in_cgroup(2), What::Exit(Exit { code: 0 })), &proc).unwrap();
    assert_eq!(moved.process.cgroup, Some(cgroup("/after")));
}

#[test]
fn a_process_that_is_gone_is_placed_by_the_cgroup_that_the_kernel_named() {
    let (mut world, proc) = (World::default(), Told::default());
    let task = Task { cgroup_id: 77, ..task(7, 0, 10) };
    let identity = world.identify(&event(10, task, exec("/x")), &proc).unwrap();
    assert_eq!(identity.process.cgroup.unwrap().path, b"/found-by-id");
}

#[test]
fn the_table_has_a_size() {
    let (mut world, proc) = (World::default(), Told::default());
    for pid in 1..=u32::try_from(MAX_PROCESSES).unwrap() + 10 {
        world.identify(&event(u64::from(pid), task(pid, 0, u64::from(pid)), exec("/x")), &proc);
    }
    assert_eq!(world.len(), MAX_PROCESSES);
}
