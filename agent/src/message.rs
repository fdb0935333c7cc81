//! The one message that the roles exchange. Sensor, core and GPU worker share nothing but this enum and passed
//! file descriptors; whether they are threads or processes is decided in `daemon`, and nowhere else.

use crate::event::{Event, Task};
use crate::identity::pod::Told;
use crate::kubelet::pod_resources::Allocation;
use crate::series::Sample;
use crate::verdict::Rules;

#[derive(Debug)]
pub enum Message {
    /// Something happened, seen by a kernel program or by the daemon itself.
    Event(Box<Event>),
    /// Every process that ran at this time: some of what told of them was lost.
    Tasks { taken_boot_ns: u64, tasks: Vec<Task> },
    /// Every pod of this node, by its uid, as the kubelet had them at this time.
    Pods { taken_boot_ns: u64, pods: Vec<(String, Told)> },
    /// Every GPU that the kubelet has given to a container; none where it does not answer.
    Allocations(Vec<Allocation>),
    /// Other policies, or directories, than before: in force for events that come after it.
    Rules(Box<Rules>),
    /// What a GPU or an engine said of itself.
    Sample(Sample),
}
