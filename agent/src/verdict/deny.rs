//! What policies deny, and the kernel decides: rules and what is known of the node go into the kernel's tables.
//!
//! The kernel asks by inode numbers and ids; what they stand for is learned here. A cgroup's place in the tree, a program's
//! paths: whatever is not known yet satisfies no subject and no exception, as everywhere in the policies.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use plumbline_policy::{Clauses, Denials, PolicySet, Protocol, Subject, prefixes};

use super::{
    WatchedPaths,
    gatekeeper::{SharedView, View},
    place::{MAX_CGROUPS, Place, is_at, tree},
    programs::Programs,
};
use crate::{
    event::{Event, FileKey, What},
    identity::{Identity, cgroup::Cgroup, exe_name::Whose, pod::Pod, procfs::Processes, users},
    probes::{
        deny::{DenyError, DenyTables, Fact, Generation},
        kernel::cgroup2_root,
    },
};

/// Shared by the daemon, which puts policies in force, and the core, which learns who is who.
pub type SharedDenier = Arc<Mutex<Denier>>;

/// Locks it; a panic elsewhere leaves tables that are as they were between two entries.
pub fn lock(denier: &SharedDenier) -> MutexGuard<'_, Denier> {
    denier.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's tables, and what is known of what they speak of.
#[derive(Debug)]
pub struct Denier {
    tables: DenyTables,
    in_force: Generation,
    denials: Arc<Denials>,
    known: Known,
    /// What was learned since a generation began to be filled that is not in force yet.
    learned: Option<HashSet<Learned>>,
    /// For whoever decides outside the kernel, if somebody does.
    view: Option<SharedView>,
}

/// What a generation must be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Learned {
    Cgroup(u64),
    Program(FileKey),
}

/// What is known of the node.
#[derive(Debug, Default)]
pub struct Known {
    /// By v2 id; `None` for one that was looked for and not found.
    cgroups: HashMap<u64, Option<Place>>,
    programs: Programs,
    /// Watched directories, and files that lie below several of them: by which paths policies named them.
    directories: HashMap<FileKey, Vec<PathBuf>>,
    names_of_users: HashMap<u32, Arc<str>>,
}

/// Rules whose tables are filled and not in force yet.
#[derive(Debug)]
#[must_use = "the kernel's tables hold it until it is put in force"]
pub struct Prepared {
    generation: Generation,
    denials: Arc<Denials>,
}

impl Prepared {
    /// Whether opens are denied.
    pub fn denies_opens(&self) -> bool {
        self.denials.of_opens()
    }
}

impl Denier {
    /// Knows the cgroups that there are now.
    pub fn new(tables: DenyTables) -> Self {
        let mut known = Known::default();
        if let Ok(root) = cgroup2_root() {
            known.cgroups.extend(tree(&root).map(|(id, cgroup)| (id, Some(Place { cgroup, pod: None }))));
        }
        Self { tables, in_force: Generation::default(), denials: Arc::default(), known, learned: None, view: None }
    }

    /// How much of the kernel's tables is each policy's, by name: what several share is divided among their rules.
    pub fn bytes_by_policy(&self) -> HashMap<String, u64> {
        let mut shares: HashMap<&str, f64> = HashMap::new();
        for (clauses, bytes) in self.in_force.bytes() {
            let policies: Vec<&str> =
                clauses.lanes().filter_map(|lane| self.denials.rule(lane)).map(|(policy, _)| policy).collect();
            #[expect(clippy::cast_precision_loss, reason = "bytes of tables, and rules that deny")]
            let share = bytes as f64 / policies.len().max(1) as f64;
            policies.into_iter().for_each(|policy| *shares.entry(policy).or_default() += share);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of bytes")]
        let whole = |share: f64| share.ceil() as u64;
        shares.into_iter().map(|(policy, share)| (policy.to_owned(), whole(share))).collect()
    }

    /// The rules in force.
    pub fn in_force(&self) -> Arc<Denials> {
        Arc::clone(&self.denials)
    }

    /// Fills the tables for these policies, beside those that are in force.
    pub fn prepare(&mut self, policies: &PolicySet, proc: &dyn Processes) -> Result<Prepared, String> {
        let denials = policies.denials().map_err(|error| error.to_string())?;
        let number = u32::try_from(policies.generation()).unwrap_or(u32::MAX);
        self.read_users(proc);
        self.learned = Some(HashSet::new());
        let mut generation = Generation::new(number);
        match self.known.fill(&mut self.tables, &mut generation, &denials) {
            Ok(()) => Ok(Prepared { generation, denials }),
            Err(error) => {
                self.learned = None;
                self.tables.remove(&generation);
                Err(crate::core::chain(&error))
            }
        }
    }

    /// Empties the tables of what is not to be in force after all.
    pub fn discard(&mut self, prepared: &Prepared) {
        self.learned = None;
        self.tables.remove(&prepared.generation);
    }

    /// Accounts of the host may have changed.
    pub fn read_users(&mut self, proc: &dyn Processes) {
        let names = users::parse(&proc.passwd().unwrap_or_default());
        if names == self.known.names_of_users {
            return;
        }
        let before = self.known.users_named_by(&self.denials);
        self.known.names_of_users = names;
        if !self.denials.is_empty() {
            let uids = before.into_iter().chain(self.known.users_named_by(&self.denials));
            let put = self.known.put_users(&mut self.tables, &mut self.in_force, &self.denials, uids);
            Self::complain(put);
            self.show();
        }
    }

    /// What decides outside the kernel has a view of the rules in force, from when they are.
    pub fn show_to(&mut self, view: SharedView) {
        self.view = Some(view);
        self.show();
    }

    fn show(&self) {
        let Some(view) = &self.view else { return };
        let places = self.known.cgroups.iter().filter_map(|(id, place)| Some((*id, place.clone()?)));
        let watched =
            self.known.directories.iter().flat_map(|(key, paths)| paths.iter().map(|path| (*key, path.clone())));
        view.replace(View {
            generation: self.in_force.number,
            denials: Arc::clone(&self.denials),
            names_of_users: self.known.names_of_users.clone(),
            places: places.collect(),
            watched: watched.collect(),
        });
    }

    /// Watched directories in which a rule denies, of those in force or of those that are about to be.
    pub fn denying_directories(&self, prepared: Option<&Prepared>) -> Vec<PathBuf> {
        let denials = [Some(&self.denials), prepared.map(|prepared| &prepared.denials)];
        let paths = self.known.directories.values().flatten();
        let is_denying = |path: &&PathBuf| {
            let path = path.as_os_str().as_encoded_bytes();
            denials.into_iter().flatten().any(|denials| !denials.by_directory(&[path]).is_nothing())
        };
        let mut paths: Vec<PathBuf> = paths.filter(is_denying).cloned().collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// From now on these rules decide; what was in force before is removed once nobody looks at it any more.
    pub fn put_in_force(&mut self, mut prepared: Prepared) {
        let put = self.known.catch_up(
            &mut self.tables,
            &mut prepared.generation,
            &prepared.denials,
            self.learned.take().unwrap_or_default(),
        );
        Self::complain(put);
        self.tables.put_in_force(&prepared.generation);
        let before = std::mem::replace(&mut self.in_force, prepared.generation);
        self.denials = prepared.denials;
        self.show();
        if before.number != self.in_force.number {
            self.tables.remove(&before);
        }
    }

    /// Directories that are about to be watched, and files below several of them: known to the rules that are in force before a
    /// program meets them. Without `keep`, those that are not among them are forgotten.
    pub fn watches(&mut self, watched: &WatchedPaths, keep: bool) {
        let mut directories: HashMap<FileKey, Vec<PathBuf>> = HashMap::new();
        for (key, asked) in watched {
            directories.entry(inode(*key)).or_default().push(asked.clone());
        }
        if keep {
            // What they were named before they are named until the policies that did are in force no more.
            for (key, named_before) in &self.known.directories {
                let named = directories.entry(*key).or_default();
                let left: Vec<PathBuf> = named_before.iter().filter(|path| !named.contains(path)).cloned().collect();
                named.splice(0..0, left);
            }
        }
        let before = std::mem::replace(&mut self.known.directories, directories);
        for key in before.keys().filter(|key| !self.known.directories.contains_key(key)) {
            self.tables.forget(&mut self.in_force, Fact::Directory(*key));
        }
        let named_otherwise = |(key, paths): &(&FileKey, &Vec<PathBuf>)| before.get(key) != Some(paths);
        let changed: Vec<FileKey> =
            self.known.directories.iter().filter(named_otherwise).map(|(key, _)| *key).collect();
        if changed.is_empty() && before.len() == self.known.directories.len() {
            return;
        }
        if !self.denials.is_empty() {
            let (tables, in_force) = (&mut self.tables, &mut self.in_force);
            let put = self.known.put_directories(tables, in_force, &self.denials, changed.into_iter());
            Self::complain(put);
            self.show();
        }
    }

    /// Learns from what happened who is who.
    pub fn saw(&mut self, event: &Event, identity: Option<&Identity>, proc: &dyn Processes) {
        if let (What::Exec(exec), Some(identity)) = (&event.what, identity)
            && let Some(whose) = identity.process.exe_whose
        {
            self.is_called(exec.key, exec.exe.clone(), whose);
        }
        if let (Some(task), Some(identity)) = (&event.task, identity) {
            self.is_in(task.cgroup_id, identity, proc);
        }
    }

    /// A file is run by this path, or could be.
    pub fn is_called(&mut self, key: FileKey, path: Vec<u8>, whose: Whose) {
        if self.known.programs.is_full(key) {
            let in_force = &self.in_force;
            for gone in self.known.programs.make_room(|key| in_force.knows(Fact::Program(Some(key)))) {
                self.tables.forget(&mut self.in_force, Fact::Program(Some(gone)));
            }
        }
        if !self.known.programs.runs(key, path, whose) {
            return;
        }
        if let Some(learned) = &mut self.learned {
            learned.insert(Learned::Program(key));
        }
        if !self.denials.is_empty() {
            let nobody = self.denials.by_program(&[]);
            let put = self.known.put_program(&mut self.tables, &mut self.in_force, &self.denials, key, &nobody);
            Self::complain(put);
        }
    }

    /// Whether programs were forgotten since this was asked last.
    pub fn has_forgotten_programs(&mut self) -> bool {
        self.known.programs.take_forgotten()
    }

    fn is_in(&mut self, id: u64, identity: &Identity, proc: &dyn Processes) {
        let told = identity.process.cgroup.as_ref();
        match self.known.cgroups.get_mut(&id) {
            Some(Some(place)) => {
                let is_same = told.is_some_and(|told| told.path == place.cgroup.path);
                if !is_same || place.pod == identity.pod || identity.pod.is_none() {
                    return;
                }
                place.pod.clone_from(&identity.pod);
            }
            Some(None) => return,
            None => {
                if self.known.cgroups.len() >= MAX_CGROUPS {
                    self.forget_cgroups();
                }
                // On a hybrid system the process's cgroup may be that of another hierarchy.
                let told = told.filter(|told| is_at(&told.path, id)).cloned();
                let place = told.or_else(|| proc.cgroup(id)).map(|cgroup| {
                    let pod = identity
                        .pod
                        .clone()
                        .filter(|_| identity.process.cgroup.as_ref().is_some_and(|told| told.path == cgroup.path));
                    Place { cgroup, pod }
                });
                self.known.cgroups.insert(id, place);
            }
        }
        self.put_cgroup(id);
    }

    /// The kubelet has told of pods.
    pub fn pods_changed(&mut self, mut pod: impl FnMut(&str, Option<&str>) -> Option<Pod>) {
        let mut changed = Vec::new();
        for (id, place) in &mut self.known.cgroups {
            let Some(place) = place else { continue };
            let Some(uid) = &place.cgroup.pod_uid else { continue };
            let told = pod(uid, place.cgroup.container.as_ref().map(|container| &*container.id));
            if told.is_some() && told != place.pod {
                place.pod = told;
                changed.push(*id);
            }
        }
        changed.into_iter().for_each(|id| self.put_cgroup(id));
    }

    fn put_cgroup(&mut self, id: u64) {
        if let Some(learned) = &mut self.learned {
            learned.insert(Learned::Cgroup(id));
        }
        if !self.denials.is_empty() {
            let put = self.known.put_cgroup(&mut self.tables, &mut self.in_force, &self.denials, id);
            Self::complain(put);
            self.show();
        }
    }

    /// Cgroups that are no more make room.
    fn forget_cgroups(&mut self) {
        let Ok(root) = cgroup2_root() else { return };
        let living: HashMap<u64, Cgroup> = tree(&root).collect();
        let gone: Vec<u64> = self.known.cgroups.keys().filter(|id| !living.contains_key(id)).copied().collect();
        for id in gone {
            self.known.cgroups.remove(&id);
            self.tables.forget(&mut self.in_force, Fact::Cgroup(Some(id)));
        }
    }

    /// An entry that could not be put in leaves what was there: its fact is as one that is not known.
    fn complain(put: Result<(), DenyError>) {
        if let Err(error) = put {
            tracing::error!(error = %crate::core::chain(&error), "the kernel does not know all that policies deny by");
        }
    }
}

impl Known {
    fn fill(&self, tables: &mut DenyTables, generation: &mut Generation, denials: &Denials) -> Result<(), DenyError> {
        if denials.is_empty() {
            return Ok(());
        }
        let uids = denials.users().0.into_iter().chain(self.users_named_by(denials));
        self.put_users(tables, generation, denials, uids)?;
        tables.put(generation, Fact::User(None), &denials.by_user(None, None))?;
        tables.put(generation, Fact::Cgroup(None), &denials.by_place(&Subject::default()))?;
        for id in self.cgroups.keys() {
            self.put_cgroup(tables, generation, denials, *id)?;
        }
        let nobody = denials.by_program(&[]);
        tables.put(generation, Fact::Program(None), &nobody)?;
        for key in self.programs.keys() {
            self.put_program(tables, generation, denials, key, &nobody)?;
        }
        self.put_directories(tables, generation, denials, self.directories.keys().copied())?;
        if denials.of_connections() {
            for network in denials.networks() {
                tables.put(generation, Fact::Network(network), &denials.by_network(network))?;
            }
            for (protocol, range) in [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .flat_map(|one| denials.ports().into_iter().map(move |ports| (one, ports)))
            {
                let clauses = denials.by_port(protocol, *range.start());
                for (first, bits) in prefixes(&range) {
                    tables.put(generation, Fact::Ports(protocol, first, bits), &clauses)?;
                }
            }
        }
        Ok(())
    }

    /// Users whom rules name, where they do by name.
    fn users_named_by(&self, denials: &Denials) -> Vec<u32> {
        let (_, names) = denials.users();
        self.names_of_users.iter().filter(|(_, name)| names.contains(&&***name)).map(|(uid, _)| *uid).collect()
    }

    fn put_users(
        &self,
        tables: &mut DenyTables,
        generation: &mut Generation,
        denials: &Denials,
        uids: impl Iterator<Item = u32>,
    ) -> Result<(), DenyError> {
        for uid in uids {
            let name = self.names_of_users.get(&uid).map(|name| &**name);
            tables.put(generation, Fact::User(Some(uid)), &denials.by_user(Some(uid), name))?;
        }
        Ok(())
    }

    /// Puts in what was learned while the rest was filled.
    fn catch_up(
        &self,
        tables: &mut DenyTables,
        generation: &mut Generation,
        denials: &Denials,
        learned: HashSet<Learned>,
    ) -> Result<(), DenyError> {
        if denials.is_empty() {
            return Ok(());
        }
        let nobody = denials.by_program(&[]);
        learned.into_iter().try_for_each(|learned| match learned {
            Learned::Cgroup(id) => self.put_cgroup(tables, generation, denials, id),
            Learned::Program(key) => self.put_program(tables, generation, denials, key, &nobody),
        })
    }

    fn put_cgroup(
        &self,
        tables: &mut DenyTables,
        generation: &mut Generation,
        denials: &Denials,
        id: u64,
    ) -> Result<(), DenyError> {
        let Some(Some(place)) = self.cgroups.get(&id) else { return Ok(()) };
        tables.put(generation, Fact::Cgroup(Some(id)), &place.lend(|subject| denials.by_place(subject)))
    }

    /// Programs that are to the rules as one that nobody knows need no entry.
    fn put_program(
        &self,
        tables: &mut DenyTables,
        generation: &mut Generation,
        denials: &Denials,
        key: FileKey,
        nobody: &Clauses,
    ) -> Result<(), DenyError> {
        let clauses = denials.by_program(&self.programs.paths(key));
        if clauses == *nobody {
            tables.forget(generation, Fact::Program(Some(key)));
            return Ok(());
        }
        tables.put(generation, Fact::Program(Some(key)), &clauses)
    }

    fn put_directories(
        &self,
        tables: &mut DenyTables,
        generation: &mut Generation,
        denials: &Denials,
        keys: impl Iterator<Item = FileKey>,
    ) -> Result<(), DenyError> {
        for key in keys {
            let paths = self.directories.get(&key).into_iter().flatten();
            let paths: Vec<&[u8]> = paths.map(|path| path.as_os_str().as_encoded_bytes()).collect();
            tables.put(generation, Fact::Directory(key), &denials.by_directory(&paths))?;
        }
        Ok(())
    }
}

/// What names a watched inode in the kernel's tables.
fn inode(key: FileKey) -> FileKey {
    FileKey { generation: 0, ..key }
}
