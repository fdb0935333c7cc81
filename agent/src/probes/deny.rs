//! The kernel's tables of what is denied, generation by generation.
//!
//! A generation is filled while the one before it is in force, comes into force by one store, and what it replaced is removed
//! when no program can be looking at it any more. So a reload has no moment in which less is denied than before and after it.
#![expect(unsafe_code, reason = "mmap edge: the word that says which generation is in force")]

use std::{
    collections::HashMap,
    net::IpAddr,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aya::{
    maps::{HashMap as KernelMap, Map, MapData, MapError, lpm_trie},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use plumbline_ebpf::deny::{
    ADDRESSES, AddressKey, Block, BlockKey, CgroupKey, Class, DIRECTORIES, DirectoryKey, LANES, NARROW_BLOCKS,
    OTHER_USER, PORTS, PortKey, ProgramKey, USERS, UserKey, WIDE_BLOCKS, WORDS,
};
use plumbline_policy::{Clauses, MAX_NARROW, MAX_NETWORKS, MAX_PORTS, MAX_USERS, MAX_WIDE, NARROW_WORDS, Protocol};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    thread::{MembarrierCommand, membarrier},
};
use thiserror::Error;

use super::{
    Probes, ProbesError,
    watch::{MAX_FILES, MAX_WATCHED},
};
use crate::event::FileKey;

const WORDS_OF_A_BLOCK: u32 = 64;

const _: () = {
    assert!(WORDS_OF_A_BLOCK as usize == WORDS && NARROW_WORDS == WORDS * NARROW_BLOCKS);
    assert!(MAX_NARROW == NARROW_WORDS * LANES && MAX_WIDE == WORDS * WIDE_BLOCKS);
    // Two generations at a time, and in each an entry for all others.
    assert!(USERS as usize == 2 * (MAX_USERS + 1));
    assert!(ADDRESSES as usize == 2 * MAX_NETWORKS && PORTS as usize == 2 * MAX_PORTS);
    assert!(DIRECTORIES as usize == 2 * (MAX_WATCHED + MAX_FILES));
};

const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;

/// A fact that rules may speak of, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fact {
    /// A user, or `None` for all that are not named.
    User(Option<u32>),
    /// A cgroup by its v2 id, or `None` for one that is not known.
    Cgroup(Option<u64>),
    /// An executable, or `None` for one that is not known.
    Program(Option<FileKey>),
    /// A watched directory.
    Directory(FileKey),
    /// A network.
    Network(ipnet::IpNet),
    /// The ports that begin with these bits.
    Ports(Protocol, u16, u8),
}

/// Why a table could not be filled.
#[derive(Debug, Error)]
pub enum DenyError {
    #[error("the kernel's table {0} takes no more")]
    Table(&'static str, #[source] MapError),
    #[error("the word that says which policies are in force cannot be mapped")]
    Word(#[source] rustix::io::Errno),
    #[error(transparent)]
    Probes(#[from] ProbesError),
}

/// Every table, and what is in them.
#[derive(Debug)]
pub struct DenyTables {
    word: Word,
    blocks: KernelMap<MapData, [u32; 3], [u64; 65]>,
    users: KernelMap<MapData, [u32; 2], [u64; 2]>,
    cgroups: KernelMap<MapData, [u64; 2], [u64; 2]>,
    programs: KernelMap<MapData, [u64; 3], [u64; 2]>,
    directories: KernelMap<MapData, [u64; 2], [u64; 2]>,
    addresses: lpm_trie::LpmTrie<MapData, [u8; 20], [u64; 2]>,
    ports: lpm_trie::LpmTrie<MapData, [u8; 8], [u64; 2]>,
}

/// What was put in for one generation.
#[derive(Debug, Default)]
pub struct Generation {
    pub number: u32,
    classes: HashMap<Clauses, Class>,
    facts: HashMap<Fact, Class>,
}

impl Generation {
    pub fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    /// Whether it has an entry of its own for this.
    pub fn knows(&self, fact: Fact) -> bool {
        self.facts.contains_key(&fact)
    }
}

impl Generation {
    /// Bytes of keys and values in the kernel's tables, by the clauses that they stand for.
    pub fn bytes(&self) -> impl Iterator<Item = (&Clauses, usize)> {
        const BLOCK: usize = size_of::<BlockKey>() + size_of::<Block>();
        let mut of_facts: HashMap<Class, usize> = HashMap::new();
        for (fact, class) in &self.facts {
            *of_facts.entry(*class).or_default() += fact.key_bytes() + size_of::<Class>();
        }
        self.classes.iter().map(move |(clauses, class)| {
            let of_facts = of_facts.get(class).copied().unwrap_or_default();
            (clauses, class.blocks.count_ones() as usize * BLOCK + of_facts)
        })
    }
}

impl Fact {
    /// Of the key in its table; tries have the length of a prefix before it.
    fn key_bytes(self) -> usize {
        match self {
            Self::User(_) => size_of::<UserKey>(),
            Self::Cgroup(_) => size_of::<CgroupKey>(),
            Self::Program(_) => size_of::<ProgramKey>(),
            Self::Directory(_) => size_of::<DirectoryKey>(),
            Self::Network(_) => size_of::<u32>() + size_of::<AddressKey>(),
            Self::Ports(..) => size_of::<u32>() + size_of::<PortKey>(),
        }
    }
}

impl DenyTables {
    /// Takes the tables out; they can be taken once.
    pub fn take(probes: &mut Probes) -> Result<Self, DenyError> {
        let word = Word::map(probes.take_map("DENY_GENERATION")?)?;
        Ok(Self {
            word,
            blocks: hash(probes, "DENY_BLOCKS")?,
            users: hash(probes, "DENY_USERS")?,
            cgroups: hash(probes, "DENY_CGROUPS")?,
            programs: hash(probes, "DENY_PROGRAMS")?,
            directories: hash(probes, "DENY_DIRECTORIES")?,
            addresses: lpm_trie::LpmTrie::try_from(probes.take_map("DENY_ADDRESSES")?)
                .map_err(table("DENY_ADDRESSES"))?,
            ports: lpm_trie::LpmTrie::try_from(probes.take_map("DENY_PORTS")?).map_err(table("DENY_PORTS"))?,
        })
    }

    /// Says what a generation's rules have to do with a fact. It may be in force already.
    pub fn put(&mut self, generation: &mut Generation, fact: Fact, clauses: &Clauses) -> Result<(), DenyError> {
        let class = match generation.classes.get(clauses) {
            Some(class) => *class,
            None => self.put_class(generation, clauses)?,
        };
        if generation.facts.get(&fact) == Some(&class) {
            return Ok(());
        }
        let value: [u64; 2] = zerocopy::transmute!(class);
        let number = generation.number;
        match fact {
            Fact::User(uid) => {
                self.users.insert(user_key(number, uid), value, 0).map_err(table("DENY_USERS"))?;
            }
            Fact::Cgroup(id) => {
                self.cgroups.insert(cgroup_key(number, id), value, 0).map_err(table("DENY_CGROUPS"))?;
            }
            Fact::Program(inode) => {
                self.programs.insert(program_key(number, inode), value, 0).map_err(table("DENY_PROGRAMS"))?;
            }
            Fact::Directory(inode) => {
                let key = directory_key(number, inode);
                self.directories.insert(key, value, 0).map_err(table("DENY_DIRECTORIES"))?;
            }
            Fact::Network(network) => {
                self.addresses.insert(&address_key(number, network), value, 0).map_err(table("DENY_ADDRESSES"))?;
            }
            Fact::Ports(protocol, first, bits) => {
                let key = port_key(number, protocol, first, bits);
                self.ports.insert(&key, value, 0).map_err(table("DENY_PORTS"))?;
            }
        }
        generation.facts.insert(fact, class);
        Ok(())
    }

    fn put_class(&mut self, generation: &mut Generation, clauses: &Clauses) -> Result<Class, DenyError> {
        let number = u32::try_from(generation.classes.len()).unwrap_or(u32::MAX);
        let mut class = Class { blocks: 0, number, reserved: 0 };
        for words in clauses.words().chunk_by(|(one, _), (other, _)| block_of(*one) == block_of(*other)) {
            let mut block = Block { live: 0, words: [0; WORDS] };
            for (at, word) in words {
                let at = usize::from(*at) % WORDS;
                block.words[at] = *word;
                block.live |= 1 << at;
            }
            let index = words.first().map_or(0, |(number, _)| block_of(*number));
            let key = BlockKey { generation: generation.number, class: number, block: index };
            let (key, block): ([u32; 3], [u64; 65]) = (zerocopy::transmute!(key), zerocopy::transmute!(block));
            self.blocks.insert(key, block, 0).map_err(table("DENY_BLOCKS"))?;
            class.blocks |= 1 << index;
        }
        generation.classes.insert(clauses.clone(), class);
        Ok(class)
    }

    /// Takes a fact out that is no more.
    pub fn forget(&mut self, generation: &mut Generation, fact: Fact) {
        if generation.facts.remove(&fact).is_some() {
            self.remove_fact(generation.number, fact);
        }
    }

    /// From now on this generation decides.
    pub fn put_in_force(&self, generation: &Generation) {
        self.word.store(generation.number);
    }

    /// Removes a generation that is in force no more, once every program that began before has ended.
    pub fn remove(&mut self, generation: &Generation) {
        wait_for_programs();
        for fact in generation.facts.keys() {
            self.remove_fact(generation.number, *fact);
        }
        for class in generation.classes.values() {
            for block in (0..64).filter(|block| class.blocks >> block & 1 == 1) {
                let key = BlockKey { generation: generation.number, class: class.number, block };
                let key: [u32; 3] = zerocopy::transmute!(key);
                let _ = self.blocks.remove(&key);
            }
        }
    }

    /// What is not there needs no removal.
    fn remove_fact(&mut self, number: u32, fact: Fact) {
        let _ = match fact {
            Fact::User(uid) => self.users.remove(&user_key(number, uid)),
            Fact::Cgroup(id) => self.cgroups.remove(&cgroup_key(number, id)),
            Fact::Program(inode) => self.programs.remove(&program_key(number, inode)),
            Fact::Directory(inode) => self.directories.remove(&directory_key(number, inode)),
            Fact::Network(network) => self.addresses.remove(&address_key(number, network)),
            Fact::Ports(protocol, first, bits) => self.ports.remove(&port_key(number, protocol, first, bits)),
        };
    }
}

impl Probes {
    /// Asks the kernel's own code about any facts: the arguments of `decide_test`. The first lane that denies, if one does.
    pub fn ask_kernel(&mut self, facts: [u64; 12]) -> Result<Option<u32>, String> {
        let program = self.ebpf.program_mut("decide_test").ok_or("the object holds no such program")?;
        let program: &mut RawTracePoint = program.try_into().map_err(|error| format!("{error}"))?;
        match program.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
            Err(error) => return Err(error.to_string()),
        }
        let mut options = RawTracePointRunOptions::new();
        options.args = facts;
        let result = program.test_run(options).map_err(|error| format!("{error}"))?;
        Ok(result.return_value.checked_sub(1))
    }

    /// How long the kernel has worked on such questions, and how often, while it counted.
    pub fn asked(&self) -> Option<(Duration, u64)> {
        let info = self.ebpf.program("decide_test")?.info().ok()?;
        Some((info.run_time(), info.run_count()))
    }
}

fn block_of(word: u16) -> u32 {
    u32::from(word) / WORDS_OF_A_BLOCK
}

fn table(name: &'static str) -> impl Fn(MapError) -> DenyError {
    move |error| DenyError::Table(name, error)
}

fn hash<K: aya::Pod, V: aya::Pod>(
    probes: &mut Probes,
    name: &'static str,
) -> Result<KernelMap<MapData, K, V>, DenyError> {
    KernelMap::try_from(probes.take_map(name)?).map_err(table(name))
}

fn user_key(generation: u32, uid: Option<u32>) -> [u32; 2] {
    zerocopy::transmute!(UserKey { generation, uid: uid.unwrap_or(OTHER_USER) })
}

fn cgroup_key(generation: u32, id: Option<u64>) -> [u64; 2] {
    zerocopy::transmute!(CgroupKey { id: id.unwrap_or(0), generation, reserved: 0 })
}

fn program_key(generation: u32, inode: Option<FileKey>) -> [u64; 3] {
    let (dev, ino, inode_generation) = inode.map_or((0, 0, 0), |inode| (inode.dev, inode.ino, inode.generation));
    zerocopy::transmute!(ProgramKey { ino, dev, inode_generation, generation, reserved: 0 })
}

/// Directories are known by their inode alone, as in `FileOpen::watched`.
fn directory_key(generation: u32, inode: FileKey) -> [u64; 2] {
    zerocopy::transmute!(DirectoryKey { ino: inode.ino, dev: inode.dev, generation })
}

/// IPv4 networks are mapped into IPv6 (RFC 4291, 2.5.5.2).
fn address_key(generation: u32, network: ipnet::IpNet) -> lpm_trie::Key<[u8; 20]> {
    let (address, bits) = match network.addr() {
        IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 96 + u32::from(network.prefix_len())),
        IpAddr::V6(v6) => (v6, u32::from(network.prefix_len())),
    };
    let data = AddressKey { generation, address: address.octets() };
    lpm_trie::Key::new(32 + bits, zerocopy::transmute!(data))
}

fn port_key(generation: u32, protocol: Protocol, first: u16, bits: u8) -> lpm_trie::Key<[u8; 8]> {
    let protocol = match protocol {
        Protocol::Tcp => IPPROTO_TCP,
        Protocol::Udp => IPPROTO_UDP,
    };
    let data = PortKey { generation, protocol, port: first.to_be_bytes() };
    lpm_trie::Key::new(48 + u32::from(bits), zerocopy::transmute!(data))
}

/// Waits until every program that runs now has ended: they run within read-side sections of RCU (membarrier(2) with
/// `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu`, kernel/sched/membarrier.c).
fn wait_for_programs() {
    // Hosts with `nohz_full=` refuse it; no program takes a thousandth of this.
    if membarrier(MembarrierCommand::Global).is_err() {
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The word of `DENY_GENERATION`, shared with the kernel.
#[derive(Debug)]
struct Word {
    at: NonNull<AtomicU32>,
    /// Programs that are loaded later ask for it by its descriptor.
    _map: Map,
}

// SAFETY: the page is mapped until the value is dropped, and the word is only touched atomically.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

impl Word {
    fn map(map: Map) -> Result<Self, DenyError> {
        let Map::Array(array) = &map else { return Err(ProbesError::NoMap("DENY_GENERATION").into()) };
        let page = rustix::param::page_size();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of the map's only page, at an address of the kernel's choice.
        let start = unsafe { mmap(std::ptr::null_mut(), page, access, MapFlags::SHARED, array.fd(), 0) };
        let start = start.map_err(DenyError::Word)?;
        let at = NonNull::new(start.cast()).ok_or(DenyError::Word(rustix::io::Errno::INVAL))?;
        Ok(Self { at, _map: map })
    }

    fn store(&self, generation: u32) {
        // SAFETY: the mapping lives as long as `self`, and a page is aligned for any word.
        unsafe { self.at.as_ref() }.store(generation, Ordering::SeqCst);
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `map` and nobody else knows it.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), rustix::param::page_size()) };
    }
}
