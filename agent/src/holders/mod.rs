//! Which container has which GPU, or instance of one: what the kubelet gave, and whose processes run there.
//!
//! Both are told, each as what it is. A GPU that is shared has several holders; where one alone has it, its numbers under
//! dcgm-exporter's names say so ([`Held::sole`]).

mod device_id;
mod devices;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::watch;

use self::{device_id::DeviceId, devices::Devices};
use crate::{
    cuda,
    event::FoundHolder,
    gpu::{Held, Holder, Holding, Part, SOURCE, Source, WORKER_SOURCE},
    identity::pod::Pod,
    kubelet::pod_resources::Allocation,
    series::{
        Point, Sample, Series,
        gpu::{
            holder::{POD_INFO, UNKNOWN_ALLOCATIONS},
            identity::{INFO, UNNAMED, UP},
            mig::MIG_INFO,
            process::{PROCESS_MEMORY_BYTES, PROCESS_UTILIZATION_RATIO, PROCESSES},
        },
    },
};

/// What a GPU's samples said of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gpu {
    /// UUID, index, simulated.
    labels: [String; 3],
    /// What `/dev` calls it.
    device: String,
    /// GPU instances, by the UUIDs of what is made of them.
    instances: BTreeMap<String, u32>,
    /// Whose processes run on it.
    running: BTreeSet<(Option<u32>, Holder)>,
    /// Those processes, and others: by number, with their instances. When it falls silent they are kept: they may be there still.
    processes: BTreeSet<(u32, Option<u32>)>,
    is_silent: bool,
    /// When it told of all that were there.
    listed_boot_ns: u64,
    /// Whose ran there before it fell silent, and when that was.
    ran: BTreeSet<(Option<u32>, Holder)>,
    silent_since_boot_ns: u64,
    /// The driver lists it now, and it answers.
    is_up: bool,
    /// It has told of its instances once.
    is_looked: bool,
}

impl Gpu {
    /// It tells who is there, or did so a moment ago.
    fn is_fresh(&self, now_boot_ns: u64) -> bool {
        !self.is_silent || now_boot_ns.saturating_sub(self.silent_since_boot_ns) <= KEEP_SILENT_NS
    }
}

/// How long a finding about a silent GPU may still name who had it.
const KEEP_SILENT_NS: u64 = 60_000_000_000;

/// What a process is called, and the pod that it is in.
pub type Named = (Vec<u8>, Option<Pod>);

/// All that is known of who has which GPU.
#[derive(Debug)]
pub struct Holders {
    gpus: BTreeMap<String, Gpu>,
    allocations: Vec<Allocation>,
    /// All GPUs that the driver lists have said who they are.
    are_all_known: bool,
    devices: Devices,
    held: watch::Sender<Arc<Held>>,
}

/// What changed: the series' new values.
pub type News = Vec<(&'static Series, Vec<Point>)>;

impl Holders {
    /// Who has what is told to whoever holds the other half.
    pub fn new(held: watch::Sender<Arc<Held>>) -> Self {
        Self { gpus: BTreeMap::new(), allocations: Vec::new(), are_all_known: false, devices: Devices::default(), held }
    }

    /// Looks at what a GPU said, and names the processes in it.
    pub fn observe(&mut self, sample: &mut Sample, name: impl FnMut(u32) -> Option<Named>) -> Option<News> {
        let Ok(points) = &mut sample.points else {
            // Nobody knows what runs on a GPU that does not answer.
            return (self.forget(&sample.source, sample.taken_boot_ns)).then(|| self.settle());
        };
        if sample.source == cuda::SOURCE {
            self.devices.observe(points, sample.taken_boot_ns, &self.gpus, self.are_all_known);
            name_processes(points, name);
            return None;
        }
        if sample.source == WORKER_SOURCE {
            let unnamed = points.iter().find(|point| *point.series == UNNAMED).and_then(Point::number);
            self.are_all_known = unnamed == Some(0.0);
            return None;
        }
        let is_full = sample.source.ends_with(":full");
        let mut is_news = false;
        if sample.source == SOURCE {
            is_news |= self.listed(points);
        } else if is_full && sample.source.starts_with("gpu:") {
            is_news |= self.looked(points, sample.taken_boot_ns, name);
        }
        is_news.then(|| self.settle())
    }

    /// Takes in what the kubelet has given; nothing where it does not answer.
    pub fn allocated(&mut self, allocations: Vec<Allocation>) -> Option<News> {
        let mut allocations = allocations;
        allocations.sort_unstable();
        if self.allocations == allocations {
            return None;
        }
        self.allocations = allocations;
        Some(self.settle())
    }

    /// Who has this GPU now, by its UUID, or had it when it fell silent a moment ago.
    pub fn of(&self, uuid: &str, now_boot_ns: u64) -> Vec<FoundHolder> {
        let held = self.held.borrow();
        let ran =
            self.gpus.get(uuid).filter(|gpu| gpu.is_fresh(now_boot_ns)).map(|gpu| gpu.ran.iter()).into_iter().flatten();
        let ran = ran.map(|(instance, holder)| Holding { instance: *instance, source: Source::Processes, holder });
        let found = held.of(uuid).chain(ran).map(|Holding { instance, source, holder }| FoundHolder {
            namespace: holder.namespace.clone(),
            pod: holder.pod.clone(),
            container: holder.container.clone(),
            instance,
            told_by: source.as_str(),
        });
        found.collect()
    }

    /// Which GPUs the process has, by their UUIDs.
    pub fn gpus_of(&self, pid: u32, now_boot_ns: u64) -> Vec<String> {
        self.devices.of_process(&self.gpus, pid, now_boot_ns)
    }

    /// Its instances are still there, as far as anybody knows.
    fn forget(&mut self, source: &str, now_boot_ns: u64) -> bool {
        let uuid = source.strip_prefix("gpu:").and_then(|source| source.strip_suffix(":full"));
        let Some(gpu) = uuid.and_then(|uuid| self.gpus.get_mut(uuid)) else { return false };
        if !gpu.is_silent {
            (gpu.is_silent, gpu.silent_since_boot_ns) = (true, now_boot_ns);
        }
        if gpu.running.is_empty() {
            return false;
        }
        gpu.ran = std::mem::take(&mut gpu.running);
        true
    }

    fn listed(&mut self, points: &[Point]) -> bool {
        let mut is_news = false;
        for point in points.iter().filter(|point| *point.series == INFO) {
            let labels = || [label(point, "UUID"), label(point, "gpu"), label(point, "simulated")];
            let gpu = self.gpus.entry(label(point, "UUID").to_owned()).or_default();
            if gpu.labels != labels() || gpu.device != label(point, "device") {
                gpu.labels = labels().map(str::to_owned);
                label(point, "device").clone_into(&mut gpu.device);
                is_news = true;
            }
        }
        let up: BTreeSet<&str> = points
            .iter()
            .filter(|point| *point.series == UP && point.number() == Some(1.0))
            .map(|point| label(point, "UUID"))
            .collect();
        for (uuid, gpu) in &mut self.gpus {
            is_news |= std::mem::replace(&mut gpu.is_up, up.contains(uuid.as_str())) != gpu.is_up;
        }
        is_news
    }

    /// Instances and processes of one GPU.
    fn looked(&mut self, points: &mut [Point], taken_boot_ns: u64, mut name: impl FnMut(u32) -> Option<Named>) -> bool {
        let Some(uuid) = points.first().map(|point| label(point, "UUID").to_owned()) else { return false };
        let mut names: BTreeMap<u32, (String, Option<Holder>)> = BTreeMap::new();
        let (mut running, mut processes) = (BTreeSet::new(), BTreeSet::new());
        let mut instances = BTreeMap::new();
        let are_all_listed = are_all_listed(points);
        for point in points {
            let instance = (*point.series == MIG_INFO).then(|| label(point, "GPU_I_ID").parse().ok()).flatten();
            instances.extend(instance.map(|instance| (label(point, "mig").to_owned(), instance)));
            let is_process = *point.series == PROCESS_MEMORY_BYTES || *point.series == PROCESS_UTILIZATION_RATIO;
            let Some(pid) = is_process.then(|| label(point, "pid").parse().ok()).flatten() else { continue };
            let (comm, holder) = names.entry(pid).or_insert_with(|| words(name(pid)));
            point.labels = with_names(point, comm, holder.as_ref());
            let instance = label(point, "GPU_I_ID").parse().ok();
            if *point.series == PROCESS_MEMORY_BYTES {
                processes.insert((pid, instance));
            }
            if let Some(holder) = holder {
                running.insert((instance, holder.clone()));
            }
        }
        let gpu = self.gpus.entry(uuid).or_default();
        let is_news = gpu.running != running || gpu.instances != instances || !gpu.is_looked;
        (gpu.running, gpu.instances, gpu.is_looked) = (running, instances, true);
        (gpu.processes, gpu.is_silent, gpu.ran) = (processes, false, BTreeSet::new());
        if are_all_listed {
            gpu.listed_boot_ns = taken_boot_ns;
        }
        is_news
    }

    /// Who has what now, told to everybody.
    fn settle(&mut self) -> News {
        let mut held: BTreeMap<Part, BTreeSet<(Source, Holder)>> = BTreeMap::new();
        let mut unknown = 0_u32;
        for Allocation { holder, device } in &self.allocations {
            match DeviceId::parse(device).and_then(|id| self.part(id)) {
                Some(part) => drop(held.entry(part).or_default().insert((Source::Kubelet, holder.clone()))),
                None => unknown += 1,
            }
        }
        for (uuid, gpu) in &self.gpus {
            for (instance, holder) in &gpu.running {
                held.entry((uuid.clone(), *instance)).or_default().insert((Source::Processes, holder.clone()));
            }
        }
        let mut infos = Vec::new();
        for ((uuid, instance), all) in &held {
            let Some(Gpu { labels: [uuid, gpu, simulated], .. }) = self.gpus.get(uuid) else { continue };
            let instance = instance.map(|instance| instance.to_string()).unwrap_or_default();
            for (source, Holder { namespace, pod, container }) in all {
                let labels = [uuid, gpu, simulated, &instance, pod, namespace, container, source.as_str()];
                infos.push(Point::new(&POD_INFO, &labels, 1.0));
            }
        }
        self.held.send_replace(Arc::new(Held::new(held)));
        // Before all GPUs have said what they are, nobody can say what is none.
        let is_known =
            !self.gpus.is_empty() && self.gpus.values().all(|gpu| gpu.is_looked) && !self.allocations.is_empty();
        let unknown = is_known.then(|| Point::new(&UNKNOWN_ALLOCATIONS, &[], f64::from(unknown))).into_iter().collect();
        vec![(&POD_INFO, infos), (&UNKNOWN_ALLOCATIONS, unknown)]
    }

    /// A number may have been another GPU's before: of several, the one that answers.
    fn the_one(&self, is_it: impl Fn(&Gpu) -> bool) -> Option<(&String, &Gpu)> {
        let all: Vec<_> = self.gpus.iter().filter(|(_, gpu)| is_it(gpu)).collect();
        match &all[..] {
            [one] => Some(*one),
            all => {
                let mut up = all.iter().filter(|(_, gpu)| gpu.is_up);
                up.next().copied().filter(|_| up.next().is_none())
            }
        }
    }

    /// Which GPU or instance of this node it is.
    fn part(&self, id: DeviceId<'_>) -> Option<Part> {
        let by_minor = |minor: u32| {
            let device = format!("nvidia{minor}");
            self.the_one(|gpu| gpu.device == device)
        };
        let known = |(uuid, gpu): (&String, &Gpu), instance: Option<u32>| {
            let is_there = instance.is_none_or(|instance| gpu.instances.values().any(|id| *id == instance));
            is_there.then(|| (uuid.clone(), instance))
        };
        match id {
            DeviceId::Uuid(uuid) => {
                let whole = self.gpus.contains_key(uuid).then(|| (uuid.to_owned(), None));
                let instance =
                    || self.gpus.iter().find_map(|(of, gpu)| Some((of.clone(), Some(*gpu.instances.get(uuid)?))));
                whole.or_else(instance)
            }
            DeviceId::Instance { uuid, instance } => known(self.gpus.get_key_value(uuid)?, Some(instance)),
            DeviceId::Minor { minor, instance } => known(by_minor(minor)?, instance),
            DeviceId::Index(index) => {
                let index = index.to_string();
                let (uuid, _) = self.the_one(|gpu| gpu.labels[1] == index)?;
                Some((uuid.clone(), None))
            }
            DeviceId::Placed { .. } => None,
        }
    }
}

/// Whether every process that the driver has on the GPU is among them: it may refuse to list them, and list some without their memory.
fn are_all_listed(points: &[Point]) -> bool {
    let listed = |kind: &str| points.iter().filter(|point| is_of(point, &PROCESS_MEMORY_BYTES, kind)).count();
    let mut counts = points.iter().filter(|point| *point.series == PROCESSES);
    let is_whole = |point: &Point| u32::try_from(listed(label(point, "type"))).map(f64::from).ok() == point.number();
    points.iter().any(|point| is_of(point, &PROCESSES, "compute")) && counts.all(is_whole)
}

fn is_of(point: &Point, series: &Series, kind: &str) -> bool {
    *point.series == *series && label(point, "type") == kind
}

/// The value of a label; empty where the series has no such.
fn label<'a>(point: &'a Point, name: &str) -> &'a str {
    let at = point.series.labels.iter().position(|known| *known == name);
    at.and_then(|at| point.labels.get(at)).map_or("", String::as_str)
}

fn words(named: Option<Named>) -> (String, Option<Holder>) {
    let Some((comm, pod)) = named else { return Default::default() };
    let holder = pod.map(|Pod { namespace, name, container, .. }| Holder {
        namespace,
        pod: name,
        container: container.unwrap_or_default(),
    });
    (String::from_utf8_lossy(&comm).into_owned(), holder)
}

/// Fills in whose the numbers of processes are.
fn name_processes(points: &mut [Point], mut name: impl FnMut(u32) -> Option<Named>) {
    let mut names: BTreeMap<u32, (String, Option<Holder>)> = BTreeMap::new();
    for point in points.iter_mut().filter(|point| point.series.labels.contains(&"process")) {
        let Ok(pid) = label(point, "pid").parse() else { continue };
        let (comm, holder) = names.entry(pid).or_insert_with(|| words(name(pid)));
        point.labels = with_names(point, comm, holder.as_ref());
    }
}

fn with_names(point: &Point, comm: &str, holder: Option<&Holder>) -> Arc<[String]> {
    relabelled(point, |name| match (name, holder) {
        ("process", _) => Some(comm.to_owned()),
        ("namespace", Some(holder)) => Some(holder.namespace.clone()),
        ("pod", Some(holder)) => Some(holder.pod.clone()),
        ("container", Some(holder)) => Some(holder.container.clone()),
        _ => None,
    })
}

/// The point's labels, with other values where there are some.
fn relabelled(point: &Point, other: impl Fn(&str) -> Option<String>) -> Arc<[String]> {
    let labels = point.series.labels.iter().zip(point.labels.iter());
    labels.map(|(name, value)| other(name).unwrap_or_else(|| value.clone())).collect()
}
