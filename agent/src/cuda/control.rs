//! What somebody says of how much is looked at, while the daemon runs.

use std::{
    io::{self, PipeReader, PipeWriter, Read as _, Write as _, pipe},
    num::NonZeroU32,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{attention::Order, config::Detail};

/// For those who say it; all clones are one.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: PipeWriter,
}

#[derive(Debug)]
struct State {
    /// Until it is taken. There is one byte in the pipe meanwhile.
    order: Option<Order>,
    now: View,
}

/// What is looked at now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub detail: Detail,
    /// A process all of which is looked at, for a while.
    #[serde(default)]
    pub traced: Option<NonZeroU32>,
    /// Parts that are looked at for a moment now and then only, as they cost too much.
    pub thinned: Vec<String>,
    /// Why nothing can be looked at, whatever is wanted.
    #[serde(default)]
    pub absent: Option<String>,
}

/// For the one who does it.
#[derive(Debug)]
pub struct Orders {
    control: Control,
    woken: PipeReader,
}

impl Control {
    pub fn new(detail: Detail) -> io::Result<(Self, Orders)> {
        let (woken, wake) = pipe()?;
        let state =
            Mutex::new(State { order: None, now: View { detail, traced: None, thinned: Vec::new(), absent: None } });
        let control = Self(Arc::new(Shared { state, wake }));
        Ok((control.clone(), Orders { control, woken }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From soon on. The last word holds.
    pub fn set(&self, order: Order) -> io::Result<()> {
        let mut state = self.state();
        if state.order.replace(order).is_none() {
            (&self.0.wake).write_all(&[0])?;
        }
        Ok(())
    }

    pub fn view(&self) -> View {
        self.state().now.clone()
    }
}

impl Orders {
    pub fn take(&mut self) -> Option<Order> {
        let order = self.control.state().order.take()?;
        // The byte that is there for it.
        let _ = self.woken.read(&mut [0]);
        Some(order)
    }

    pub fn show(&self, view: View) {
        self.control.state().now = view;
    }
}

impl AsFd for Orders {
    /// Readable while there is an order.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::halt::{Halt, Woken};

    #[test]
    fn the_last_word_holds_and_wakes_once() {
        let (_writer, halt) = Halt::pair().unwrap();
        let (control, mut orders) = Control::new(Detail::Sync).unwrap();
        assert_eq!(orders.take(), None);
        control.set(Order::Detail(Detail::Off)).unwrap();
        let last = Order::Trace { pid: NonZeroU32::MIN, span: Duration::from_secs(30) };
        control.set(last).unwrap();
        assert_eq!(halt.wait_or(Some(orders.as_fd()), Duration::from_secs(60)), Woken::Readable);
        assert_eq!((orders.take(), orders.take()), (Some(last), None));
        assert_eq!(halt.wait_or(Some(orders.as_fd()), Duration::ZERO), Woken::Late);
        orders.show(View { detail: Detail::Full, traced: None, thinned: vec!["launches".to_owned()], absent: None });
        assert_eq!(control.view().thinned, ["launches"]);
    }
}
