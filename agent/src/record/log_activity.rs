//! [`Loss`] as OCSF 1008 Event Log Activity: a declared hole in the evidence.

use serde_json::{Map, Value};

use super::Body;
use crate::event::Loss;

const CLASS_UID: u64 = 1008;
/// OCSF has no activity for lost events.
const ACTIVITY_OTHER: u64 = 99;

pub fn loss(loss: &Loss) -> Body {
    let mut own = Map::new();
    own.insert("place".into(), loss.place.into());
    own.insert("lost_by".into(), loss.what.clone().into());
    own.insert("count".into(), loss.count.into());
    if let Some(cpu) = loss.cpu {
        own.insert("cpu".into(), cpu.into());
    }
    let fields = Map::from_iter([
        ("log_name".to_owned(), Value::from("plumbline")),
        ("log_provider".to_owned(), Value::from("plumbline")),
    ]);
    Body {
        class_uid: CLASS_UID,
        activity_id: ACTIVITY_OTHER,
        activity_name: "Loss",
        message: format!("{} events of {} were lost ({})", loss.count, loss.what, loss.place),
        kind: "loss",
        fields,
        own,
    }
}
