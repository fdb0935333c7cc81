//! The one message that the roles exchange. Sensor, core and GPU worker share nothing but this enum and passed
//! file descriptors; whether they are threads or processes is decided in `daemon`, and nowhere else.

use crate::event::Event;
use crate::series::Sample;

#[derive(Debug)]
pub enum Message {
    /// Something happened, seen by a kernel program or by the daemon itself.
    Event(Box<Event>),
    /// What a GPU or an engine said of itself.
    Sample(Sample),
}
