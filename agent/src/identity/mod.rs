//! Who did it: process → lineage → cgroup → container → pod, and file → artefact.
//!
//! The table of processes is seeded by the task iterator and kept by fork, exec and exit. What an event's process was
//! is asked of the table first and of `/proc` second; what neither knows is `None`, never a guess.

pub mod artefact;
mod below;
pub mod cgroup;
pub mod digest;
pub mod dns;
pub mod exe_name;
pub mod pod;
pub mod procfs;
pub mod tree;
pub mod users;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use self::{
    artefact::Artefact,
    cgroup::Cgroup,
    digest::Digests,
    dns::{Dns, Resolved, resolvers::Resolvers},
    exe_name::Whose,
    pod::{Pod, Pods},
    procfs::{Processes, Seen},
    tree::{HasRead, Readings, Taken, Tree},
    users::Users,
};
use crate::event::{Event, FileKey, Finding, FoundProcess, Task, What};

/// Processes kept, living and lately dead; beyond it the longest dead leave first, then the oldest.
pub const MAX_PROCESSES: usize = 65_536;

/// Dead processes stay this long, for events that arrive after their exit and for their children's lineage.
const KEEP_DEAD_NS: u64 = 60_000_000_000;

/// A start that `/proc` told is rounded down to this (USER_HZ is 100).
const TICK_NS: u64 = 10_000_000;

/// Ancestors given with an event.
const MAX_ANCESTORS: usize = 16;

/// One process as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub pid: u32,
    pub start_boot_ns: u64,
    pub ppid: u32,
    pub comm: Vec<u8>,
    pub exe: Option<Vec<u8>>,
    /// Arguments, each ended by a NUL; `None` where nobody told them.
    pub arguments: Option<Vec<u8>>,
    pub loginuid: Option<u32>,
    /// Whose name `exe` is; `None` where it may be of the process's own making, or nobody looked.
    pub exe_whose: Option<Whose>,
    /// What it runs has no name: removed since, as by an upgrade, or never had one.
    pub exe_deleted: bool,
    pub cgroup: Option<Cgroup>,
    /// The v2 id under which `cgroup` was read: a different id means that the process moved.
    pub cgroup_id: u64,
    /// The tree that it belongs to; `None` for a parent that did nothing itself yet.
    pub tree: Option<Tree>,
}

impl Process {
    /// What it runs by a name that policies can rest on.
    pub fn exe_by_name(&self) -> Option<&[u8]> {
        self.exe_whose.and(self.exe.as_deref())
    }

    fn is_contained(&self) -> bool {
        self.cgroup.as_ref().is_some_and(Cgroup::is_contained)
    }

    fn whose_running(&self, proc: &dyn Processes) -> Option<Whose> {
        self.exe.as_ref().and_then(|exe| proc.whose_running(self.pid, exe, self.is_contained()))
    }
}

/// A process in short, as another's evidence.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    pub pid: u32,
    pub start_boot_ns: u64,
    pub comm: Vec<u8>,
    pub exe: Option<Vec<u8>>,
}

/// What an event's task turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    pub process: Process,
    /// Parent first.
    pub ancestors: Vec<Process>,
    /// The artefact that an opened file claims to be.
    pub artefact: Option<Artefact>,
    /// What its pod is called, where a kubelet tells.
    pub pod: Option<Pod>,
    /// Watched files that its tree has read; asked for connections only.
    pub has_read: HasRead,
    /// The names of the address that a connection leads to.
    pub dns: Resolved,
    /// The name of its user id, on the host.
    pub user: Option<Arc<str>>,
    /// What its executable holds, where a policy asks.
    pub exe_sha256: Option<String>,
    /// Whether another tree of processes that lives has read the file that was changed.
    pub is_served: Option<bool>,
}

/// The node's processes.
#[derive(Debug, Default)]
pub struct World {
    processes: HashMap<u32, Process>,
    dead: VecDeque<(u64, u32, u64)>,
    readings: Readings,
    pub pods: Pods,
    pub dns: Dns,
    users: Users,
    pub digests: Digests,
}

impl World {
    /// With the name servers that the configuration names, for all processes; without, each is asked what it is configured
    /// to ask.
    pub fn with_resolvers(servers: Option<Vec<ipnet::IpNet>>) -> Self {
        Self { dns: Dns::new(Resolvers::new(servers)), ..Self::default() }
    }

    /// Takes in every process that runs already.
    pub fn seed(&mut self, tasks: &[Task], proc: &dyn Processes) {
        for task in tasks {
            self.know(task, proc);
        }
    }

    /// Takes in what was missed when forks, execs or exits were lost: `tasks` are all processes that ran at that time.
    pub fn heal(&mut self, taken_boot_ns: u64, tasks: &[Task], proc: &dyn Processes) {
        let mut alive = HashMap::new();
        for task in tasks {
            self.know(task, proc);
            alive.insert(task.pid, task.start_boot_ns);
            // What it runs may be another program by now.
            if let Some(seen) = proc.look(task.pid, task.start_boot_ns)
                && let Some(process) = self.processes.get_mut(&task.pid)
                && seen.exe.is_some()
                && seen.exe != process.exe
            {
                process.exe = seen.exe;
                process.arguments = seen.arguments;
                process.exe_deleted = seen.exe_deleted;
                process.comm.clone_from(&task.comm);
                process.exe_whose = process.whose_running(proc);
            }
        }
        let ended = self.processes.values().filter(|process| {
            process.start_boot_ns < taken_boot_ns
                && alive.get(&process.pid).is_none_or(|start| *start > process.start_boot_ns + TICK_NS)
        });
        let ended: Vec<_> = ended.map(|process| (taken_boot_ns, process.pid, process.start_boot_ns)).collect();
        self.dead.extend(ended);
    }

    pub fn len(&self) -> usize {
        self.processes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Living trees of processes whose readings were forgotten since this was asked last.
    pub fn take_forgotten(&mut self) -> u64 {
        self.readings.take_forgotten()
    }

    /// Learns from the event, and says who did it.
    pub fn identify(&mut self, event: &Event, proc: &dyn Processes) -> Option<Identity> {
        self.forget_dead(event.boot_ns);
        if let What::Finding(Finding { process: Some(found), .. }) = &event.what {
            return self.of_found(found, event.boot_ns, proc);
        }
        let task = event.task.as_ref()?;
        self.know(task, proc);
        match &event.what {
            What::Fork(fork) => {
                if let Some(parent) = self.processes.get(&task.pid) {
                    let child = Process {
                        pid: fork.child_pid,
                        start_boot_ns: fork.child_start_boot_ns,
                        ppid: task.pid,
                        // What pid 1 starts are trees of their own.
                        tree: parent
                            .tree
                            .clone()
                            .filter(|_| parent.pid > 1)
                            .or_else(|| Some(Tree::of(fork.child_pid, fork.child_start_boot_ns))),
                        ..parent.clone()
                    };
                    self.insert(child);
                }
            }
            What::Exec(exec) => {
                if let Some(process) = self.processes.get_mut(&task.pid) {
                    process.exe = Some(exec.exe.clone());
                    process.arguments = Some(exec.arguments.clone());
                    process.loginuid = exec.loginuid;
                    process.exe_deleted = exec.deleted;
                    process.comm.clone_from(&task.comm);
                    process.ppid = task.ppid;
                    // A runtime moves a process into its cgroup before it executes the container's program.
                    if let Some(cgroup) = proc.look(task.pid, task.start_boot_ns).and_then(|seen| seen.cgroup) {
                        let before = process.cgroup.replace(cgroup);
                        process.exe_whose = proc.whose_exec(exec, process.is_contained());
                        self.moved(task, before.as_ref());
                    } else {
                        process.exe_whose = proc.whose_exec(exec, process.is_contained());
                    }
                }
            }
            What::Exit(_) => self.dead.push_back((event.boot_ns, task.pid, task.start_boot_ns)),
            _ => {}
        }
        let process = self.processes.get(&task.pid)?.clone();
        let artefact = match &event.what {
            What::FileOpen(open) => Artefact::of_path(open.known_as.as_deref().unwrap_or(&open.path)),
            What::FileRead(read) => read.path.as_deref().and_then(Artefact::of_path),
            What::FileChange(change) => change.known_as.as_deref().and_then(Artefact::of_path),
            _ => None,
        };
        if let (Some(tree), Some(taken)) = (&process.tree, Taken::of(&event.what, who(&process), event.boot_ns)) {
            let processes = &self.processes;
            self.readings.took(tree, taken, || processes.values().filter_map(|process| process.tree.as_ref()));
        }
        let has_read = match (&event.what, &process.tree) {
            (What::Connect(_) | What::ConnectEnd(_) | What::LocalConnect(_) | What::Exec(_), Some(tree)) => {
                self.readings.of(tree)
            }
            _ => HasRead::default(),
        };
        let dns = match &event.what {
            What::Connect(connect) => self.dns.of_begin(connect, task, event.boot_ns, proc),
            What::ConnectEnd(end) => self.dns.of_end(end, task, event.boot_ns, proc),
            What::Dns(message) => {
                // Its executable may be long, and is not told with a name.
                let who = Who { exe: None, ..who(&process) };
                self.dns.take(message, task, who, event.boot_ns, proc);
                Resolved::default()
            }
            _ => Resolved::default(),
        };
        let is_served = match (&event.what, &process.tree) {
            (What::FileChange(change), Some(tree)) => self.is_served(change.key, tree),
            _ => None,
        };
        let pod = self.pod_of(&process, event.boot_ns, proc);
        let user = self.users.name(task.uid, event.boot_ns, proc);
        let exe_sha256 = if self.digests.are_wanted { self.digests.of(task, &process, proc) } else { None };
        let ancestors = self.ancestors(&process);
        Some(Identity { process, ancestors, artefact, pod, has_read, dns, user, exe_sha256, is_served })
    }

    /// What a process is called, and its pod, for who knows its number alone.
    pub fn named(&mut self, pid: u32, now_boot_ns: u64, proc: &dyn Processes) -> Option<(Vec<u8>, Option<Pod>)> {
        let process = match self.processes.get(&pid) {
            Some(known) => known.clone(),
            None => {
                let (comm, cgroup) = proc.name(pid)?;
                Process { pid, comm, cgroup, ..Process::default() }
            }
        };
        let pod = self.pod_of(&process, now_boot_ns, proc);
        Some((process.comm, pod))
    }

    /// Who it is that somebody else has named, if it still runs or was known.
    fn of_found(&mut self, found: &FoundProcess, now_boot_ns: u64, proc: &dyn Processes) -> Option<Identity> {
        let process = match self.processes.get(&found.pid) {
            Some(known) => known.clone(),
            None => {
                let seen = proc.look(found.pid, 0)?;
                let Seen { ppid, start_boot_ns, comm, exe, exe_deleted, cgroup, .. } = seen;
                Process { pid: found.pid, ppid, start_boot_ns, comm, exe, exe_deleted, cgroup, ..Process::default() }
            }
        };
        let (pod, ancestors) = (self.pod_of(&process, now_boot_ns, proc), self.ancestors(&process));
        Some(Identity { process, ancestors, pod, ..Identity::default() })
    }

    /// Whether another tree, with a process that lives, has read the file; `None` where one has read more than is remembered.
    fn is_served(&self, file: FileKey, by: &Tree) -> Option<bool> {
        let readers = self.readings.others_that_read(file, by);
        if readers.is_empty() {
            return Some(false);
        }
        let dead: HashSet<(u32, u64)> = self.dead.iter().map(|(_, pid, start)| (*pid, *start)).collect();
        let living = self.processes.values().filter(|process| !dead.contains(&(process.pid, process.start_boot_ns)));
        let trees: Vec<&Tree> = living.filter_map(|process| process.tree.as_ref()).collect();
        let lives = |surely: bool| {
            readers.iter().any(|(root, is_sure)| *is_sure == surely && trees.iter().any(|tree| tree.is_rooted_at(root)))
        };
        if lives(true) {
            return Some(true);
        }
        if lives(false) { None } else { Some(false) }
    }

    fn pod_of(&mut self, process: &Process, now_boot_ns: u64, proc: &dyn Processes) -> Option<Pod> {
        let cgroup = process.cgroup.as_ref()?;
        let container = cgroup.container.as_ref().map(|container| &*container.id);
        let uid = cgroup.pod_uid.as_deref()?;
        self.pods.of(uid, container, now_boot_ns, || proc.pod(uid, container))
    }

    /// Brings the table's entry of this task up to date.
    fn know(&mut self, task: &Task, proc: &dyn Processes) {
        let known = self
            .processes
            .get(&task.pid)
            .is_some_and(|process| process.start_boot_ns == task.start_boot_ns && process.cgroup_id == task.cgroup_id);
        if known {
            return;
        }
        let before = self.processes.remove(&task.pid).filter(|before| before.start_boot_ns == task.start_boot_ns);
        let seen = proc.look(task.pid, task.start_boot_ns).unwrap_or_default();
        // Gone before we could look: the kernel named its cgroup, and whoever else is in it, or its directory, tells.
        let told = |process: &&Process| process.cgroup_id == task.cgroup_id;
        let known = [before.as_ref(), self.processes.get(&task.ppid)].into_iter().flatten().find(told);
        let cgroup = seen
            .cgroup
            .or_else(|| known.and_then(|process| process.cgroup.clone()))
            .or_else(|| proc.cgroup(task.cgroup_id));
        let is_new = before.as_ref().is_none_or(|before| before.tree.is_none());
        let cgroup_before = before.as_ref().map(|before| before.cgroup.clone());
        let before = before.unwrap_or_default();
        let is_exe_known = before.exe.is_some();
        let mut process = Process {
            pid: task.pid,
            start_boot_ns: task.start_boot_ns,
            ppid: task.ppid,
            comm: task.comm.clone(),
            exe: before.exe.or(seen.exe),
            exe_whose: before.exe_whose,
            arguments: before.arguments.or(seen.arguments),
            loginuid: before.loginuid.or(seen.loginuid),
            exe_deleted: before.exe_deleted || seen.exe_deleted,
            cgroup,
            cgroup_id: task.cgroup_id,
            tree: before.tree,
        };
        if !is_exe_known {
            process.exe_whose = process.whose_running(proc);
        }
        self.insert(process);
        self.know_parents(task.ppid, proc);
        if let Some(cgroup_before) = cgroup_before {
            self.moved(task, cgroup_before.as_ref());
        }
        let tree = is_new.then(|| self.tree_above(task));
        if let (Some(tree), Some(process)) = (tree, self.processes.get_mut(&task.pid)) {
            process.tree = Some(tree);
        }
    }

    /// The process may have left the cgroup of its tree: then it begins one of its own.
    fn moved(&mut self, task: &Task, before: Option<&Cgroup>) {
        let Some(process) = self.processes.get_mut(&task.pid) else { return };
        let path = |cgroup: Option<&Cgroup>| cgroup.map(|cgroup| cgroup.path.clone());
        if before.is_none() || path(process.cgroup.as_ref()) == path(before) {
            return;
        }
        process.tree = process.tree.take().map(|tree| tree.branch(task.pid, task.start_boot_ns));
    }

    /// The tree of a process that nobody saw forked: that of the parents in its cgroup.
    fn tree_above(&self, task: &Task) -> Tree {
        let mut top = Tree::of(task.pid, task.start_boot_ns);
        let Some(process) = self.processes.get(&task.pid) else { return top };
        let path = |process: &Process| process.cgroup.as_ref().map(|cgroup| cgroup.path.clone());
        for parent in self.ancestors(process) {
            if parent.pid <= 1 || path(&parent) != path(process) {
                break;
            }
            if let Some(tree) = parent.tree {
                return tree;
            }
            top = Tree::of(parent.pid, parent.start_boot_ns);
        }
        top
    }

    /// Ancestors that nobody told us of: from `/proc`, upwards, until a known one.
    fn know_parents(&mut self, mut pid: u32, proc: &dyn Processes) {
        for _ in 0..MAX_ANCESTORS {
            if pid == 0 || self.processes.contains_key(&pid) {
                return;
            }
            let Some(seen) = proc.look(pid, 0) else { return };
            let Seen { ppid, start_boot_ns, comm, exe, arguments, loginuid, exe_deleted, cgroup } = seen;
            let mut process = Process {
                pid,
                start_boot_ns,
                ppid,
                comm,
                exe,
                exe_whose: None,
                arguments,
                loginuid,
                exe_deleted,
                cgroup,
                cgroup_id: 0,
                tree: None,
            };
            process.exe_whose = process.whose_running(proc);
            self.insert(process);
            pid = ppid;
        }
    }

    fn ancestors(&self, of: &Process) -> Vec<Process> {
        let mut ancestors: Vec<Process> = Vec::new();
        let mut child = of;
        while ancestors.len() < MAX_ANCESTORS
            && let Some(parent) = self.processes.get(&child.ppid)
            // A parent is older than its child; another is a number used again.
            && parent.start_boot_ns <= child.start_boot_ns
            && parent.pid != child.pid
        {
            ancestors.push(parent.clone());
            child = parent;
        }
        ancestors
    }

    fn insert(&mut self, process: Process) {
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&process.pid) {
            self.make_room();
        }
        self.processes.insert(process.pid, process);
    }

    fn make_room(&mut self) {
        while let Some((_, pid, start_boot_ns)) = self.dead.pop_front() {
            if self.remove(pid, start_boot_ns) {
                return;
            }
        }
        let oldest = self.processes.values().min_by_key(|process| process.start_boot_ns).map(|process| process.pid);
        if let Some(pid) = oldest {
            self.processes.remove(&pid);
        }
    }

    fn forget_dead(&mut self, now_boot_ns: u64) {
        while let Some(&(died_boot_ns, pid, start_boot_ns)) = self.dead.front()
            && died_boot_ns + KEEP_DEAD_NS < now_boot_ns
        {
            self.dead.pop_front();
            self.remove(pid, start_boot_ns);
        }
    }

    /// Removes the process unless its number has been used again.
    fn remove(&mut self, pid: u32, start_boot_ns: u64) -> bool {
        let same = self.processes.get(&pid).is_some_and(|process| process.start_boot_ns == start_boot_ns);
        if same {
            self.processes.remove(&pid);
        }
        same
    }
}

fn who(process: &Process) -> Who {
    Who { pid: process.pid, start_boot_ns: process.start_boot_ns, comm: process.comm.clone(), exe: process.exe.clone() }
}

#[cfg(test)]
mod tests;
