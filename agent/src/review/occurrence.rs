//! A record of the log → the event that policies were asked about, so that they, or others, can be asked again.
//!
//! What a record does not hold is not known, as it is in an event: it satisfies no exception. Names that are not UTF-8
//! come back exactly where the record holds their bytes (`*_b64`); of ancestors and of what was read it holds text only.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use plumbline_policy::{
    Access, Accesses, BpfHow, BpfKind, DeviceKind, MemoryHow, Occurrence, OwnedObject, OwnedPod, OwnedSubject,
    OwnedTaken, Protocol, Severity,
};
use serde_json::Value;

use crate::{event::Change, verdict::change_access};

/// The event of a record; `None` where policies do not speak about its kind.
pub fn of_record(record: &Value) -> Option<Occurrence> {
    let own = record.pointer("/unmapped/plumbline")?;
    let object = match finding(own) {
        Some(finding) => finding,
        None => object(own["kind"].as_str()?, record, own)?,
    };
    let process = record.pointer("/actor/process");
    Some(Occurrence { subject: process.map(|process| subject(process, own)).unwrap_or_default(), object })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The exact bytes where there are some, else those of the text.
fn bytes(shown: &Value, exact: &Value) -> Option<Vec<u8>> {
    let exact = exact.as_str().and_then(|b64| STANDARD.decode(b64).ok());
    exact.or_else(|| shown.as_str().map(|text| text.as_bytes().to_vec()))
}

fn finding(own: &Value) -> Option<OwnedObject> {
    let finding = own.get("finding")?;
    Some(OwnedObject::Finding {
        kind: text(&finding["kind"])?,
        severity: Severity::named(finding["severity"].as_str()?)?,
        entity: text(&finding["entity"]).unwrap_or_default(),
        text: text(&finding["text"]).unwrap_or_default(),
    })
}

fn object(kind: &str, record: &Value, own: &Value) -> Option<OwnedObject> {
    let path = || bytes(&record["file"]["path"], &own["path_b64"]);
    let file = |accesses: Accesses| OwnedObject::File {
        accesses,
        path: path().unwrap_or_default(),
        path_truncated: own["path_truncated"] == true || path().is_none(),
        watched: text(&own["watched"]),
        artefact: text(&record["enrichments"][0]["data"]["artefact"]["repository"]),
        bytes: own["bytes_read"].as_u64().max(own["bytes_faulted"].as_u64()),
        percent: own["coverage"]["touched"]
            .as_u64()
            .zip(own["coverage"]["slices"].as_u64())
            .and_then(|(touched, of)| u8::try_from(touched.saturating_mul(100).checked_div(of)?).ok()),
        is_served: own["is_served"].as_bool(),
    };
    let is_some = |name: &str| own[name].as_u64().unwrap_or(0) > 0;
    Some(match kind {
        "file_open" => file(Accesses::of([Access::Open])),
        "file_read" if is_some("bytes_faulted") => file(Accesses::of([Access::Read, Access::Map])),
        "file_read" if is_some("bytes_read") => file(Accesses::of([Access::Read])),
        "file_read" => file(Accesses::of([Access::Write])),
        "file_change" => {
            let word = own["change"].as_str()?;
            let (_, how) = Change::ALL.into_iter().find(|(_, how)| how.as_str() == word)?;
            file(Accesses::of([change_access(how)]))
        }
        "connect" | "connect_end" => {
            let endpoint = &record["dst_endpoint"];
            let is_named = own["dns"]["state"] == "matched";
            let names = own["dns"]["names"].as_array().filter(|_| is_named).into_iter().flatten();
            OwnedObject::Connect {
                protocol: match record["connection_info"]["protocol_name"].as_str()? {
                    "udp" => Protocol::Udp,
                    _ => Protocol::Tcp,
                },
                address: endpoint["ip"].as_str()?.parse().ok()?,
                port: endpoint["port"].as_u64().and_then(|port| u16::try_from(port).ok())?,
                names: names.filter_map(|known| text(&known["name"])).collect(),
                source: record["src_endpoint"]["ip"].as_str().and_then(|ip| ip.parse().ok()),
            }
        }
        "exec" => OwnedObject::Exec {
            path: bytes(&record["process"]["file"]["path"], &own["exe_b64"])?,
            is_nameless: own.get("exe_state").is_some(),
        },
        "device_open" => OwnedObject::Device {
            kind: match own["device_kind"].as_str()? {
                "gpu_device" => DeviceKind::Gpu,
                "block_device" => DeviceKind::Block,
                _ => DeviceKind::Bypass,
            },
            path: path()?,
        },
        "memory_access" => OwnedObject::Memory {
            how: match own["how"].as_str()? {
                "process_vm_readv" => MemoryHow::VmRead,
                "ptrace" => MemoryHow::Ptrace,
                "proc_mem" => MemoryHow::ProcMem,
                _ => MemoryHow::Attach,
            },
        },
        "bpf_access" => OwnedObject::Bpf {
            kind: match own["object"]["kind"].as_str()? {
                "map" => BpfKind::Map,
                "program" => BpfKind::Program,
                _ => BpfKind::Link,
            },
            name: text(&own["object"]["name"])?.into_bytes(),
            how: if own["how"] == "open" { BpfHow::Open } else { BpfHow::Change },
        },
        "local_connect" => OwnedObject::Local { name: text(&record["dst_endpoint"]["svc_name"])?.into_bytes() },
        "socket_open" => OwnedObject::Socket { family: text(&own["family"])? },
        _ => return None,
    })
}

fn subject(process: &Value, own: &Value) -> OwnedSubject {
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let items = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let pod = own.get("pod");
    OwnedSubject {
        pid: number(&process["pid"]),
        uid: process["user"]["uid"].as_str().and_then(|uid| uid.parse().ok()),
        user: text(&own["user"]),
        comm: bytes(&process["name"], &own["comm_b64"]).unwrap_or_default(),
        exe: bytes(&process["file"]["path"], &own["exe_b64"]).filter(|_| own["exe_name"] != "unproven"),
        exe_sha256: text(&own["exe_sha256"]),
        ancestors: items(&process["ancestry"]).iter().map(|one| bytes(&one["path"], &Value::Null)).collect(),
        cgroup: bytes(&own["cgroup"], &Value::Null),
        container: text(&process["container"]["uid"]),
        image: text(&own["image"]),
        pod_uid: text(&process["container"]["pod_uuid"]),
        pod: pod.map(|pod| OwnedPod {
            namespace: text(&pod["namespace"]).unwrap_or_default(),
            name: text(&pod["name"]).unwrap_or_default(),
            labels: pod["labels"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
                .collect(),
        }),
        has_read: items(&own["has_read"]).iter().map(read).collect(),
    }
}

/// A file that the tree had read.
fn read(half: &Value) -> OwnedTaken {
    OwnedTaken { path: bytes(&half["path"], &Value::Null), watched: bytes(&half["watched"], &Value::Null) }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use plumbline_policy::PolicySet;

    use super::*;
    use crate::{
        event::{
            Connect, ConnectHow, Coverage, Event, Exec, FileChange, FileKey, FileOpen, FileRead, Loss, NetNs,
            SocketOpen, Task, Told, What,
        },
        identity::{
            Identity, Process, Who,
            pod::Pod,
            tree::{HasRead, Taken},
        },
        record::{Moment, Recorder},
        verdict::judge,
    };

    const POLICY: &str = r#"
apiVersion: plumbline/v1
kind: Policy
metadata: {name: p}
spec:
  rules:
    - {name: open, severity: low, effect: alert, message: "{path} {exe} {user} {pod}", match: {file: {watch: [/models]}}}
    - {name: bulk, severity: low, effect: audit, message: "{percent}", match: {file: {watch: [/models], access: map, atLeast: {percent: 50}}}}
    - {name: change, severity: low, effect: audit, message: "{access}", match: {file: {watch: [/models], access: change, whileServed: true}}}
    - {name: out, severity: low, effect: audit, message: "{address} {port}", match: {connect: {notTo: [10.0.0.0/8]}}}
    - {name: exec, severity: low, effect: audit, message: "{path}", match: {exec: {nameless: true}}}
    - {name: raw, severity: low, effect: audit, message: "{family}", match: {socket: {family: AF_PACKET}}}
    - {name: after, severity: low, effect: audit, message: "{read}", match: {connect: {notTo: [10.0.0.0/8], afterReading: [/models]}}}
    - {name: started, severity: low, effect: audit, message: "{read}", match: {exec: {afterReading: [/models]}}}
    - {name: lost, severity: low, effect: audit, message: "{text} {entity}", match: {finding: {kind: evidence.loss}}}
    - name: of-pods
      severity: low
      effect: audit
      message: "{cgroup}"
      subject: {namespace: serving, podLabels: {app: vllm}, image: "vllm/*:*", user: ada, exeSha256: "0000000000000000000000000000000000000000000000000000000000000000"}
      match: {file: {watch: [/models]}}
"#;

    /// What policies say of an event, and what they say of its record, are the same; and this many rules match.
    #[track_caller]
    fn check(what: What, rules: usize) {
        let policies = PolicySet::from_documents([("p.yaml", POLICY)]).unwrap();
        let key = FileKey { dev: 1, ino: 2, generation: 0 };
        let watched = vec![(key, PathBuf::from("/models"))];
        let identity = Identity {
            process: Process {
                exe: Some(b"/bin/\xffcat".to_vec()),
                exe_deleted: matches!(what, What::Exec(_)),
                ..Process::default()
            },
            pod: Some(Pod {
                namespace: "serving".into(),
                name: "vllm-0".into(),
                container: None,
                image: Some("vllm/vllm-openai:v0.11.0".into()),
                labels: [("app".to_owned(), "vllm".to_owned())].into(),
            }),
            user: Some("ada".into()),
            exe_sha256: Some("0".repeat(64)),
            is_served: matches!(what, What::FileChange(_)).then_some(true),
            // By a name that says nothing of where it lies, and without a name.
            has_read: HasRead { files: vec![taken(Some(b"/mnt/m".to_vec())), taken(None)], left_out: 0 },
            ..Identity::default()
        };
        let task = (!matches!(what, What::Loss(_))).then(|| Task {
            pid: 7,
            uid: 1000,
            comm: b"\xffc".to_vec(),
            ..Task::default()
        });
        let identity = task.is_some().then_some(identity);
        let event = Event { boot_ns: 1, origin: None, task, what };
        let judgement = judge(&policies, &watched, &event, identity.as_ref()).unwrap();
        assert_eq!(judgement.verdict.matched().len(), rules, "{:?}", judgement.verdict);
        let recorder = Recorder {
            hostname: "h".into(),
            boot_id: "b".into(),
            build: "c".into(),
            redactor: Arc::default(),
            processes: true,
        };
        let moment = Moment { unix_minus_boot_ns: 0, clock_sync: "unknown", policy_digest: "d", policy_generation: 1 };
        let record = recorder.event(&event, identity.as_ref(), Some(&judgement), &moment).unwrap();
        let again = of_record(&Value::Object(record)).unwrap();
        assert_eq!(again.lend(|facts| policies.decide(facts)), judgement.verdict);
    }

    const KEY: FileKey = FileKey { dev: 1, ino: 2, generation: 0 };

    fn taken(path: Option<Vec<u8>>) -> Taken {
        Taken {
            path,
            key: KEY,
            watched: KEY,
            reader: Who::default(),
            first_boot_ns: 0,
            last_boot_ns: 0,
            bytes_read: None,
            bytes_faulted: None,
        }
    }

    #[test]
    fn an_open_by_a_name_that_is_not_utf8() {
        let open = FileOpen {
            path: b"/mnt/\xff".to_vec(),
            path_truncated: false,
            known_as: None,
            key: KEY,
            watched: KEY,
            flags: 0,
            inode_mode: 0o100_644,
            size_bytes: 1,
            links: 1,
            received: false,
            denied_by: None,
        };
        check(What::FileOpen(open), 2);
    }

    #[test]
    fn half_of_a_file_that_was_mapped() {
        let read = FileRead {
            path: None,
            key: KEY,
            watched: KEY,
            size_bytes: 7,
            bytes_read: Some(0),
            bytes_faulted: Some(9),
            bytes_written: None,
            coverage: Coverage::of_slices(&std::array::from_fn(|slice| u8::from(slice < 256))),
            first_boot_ns: 0,
            last_boot_ns: 0,
            told: Told::Close,
        };
        check(What::FileRead(read), 1);
    }

    #[test]
    fn a_change_of_a_file_that_is_served() {
        for (_, how) in Change::ALL {
            let change = FileChange {
                how,
                path: b"/models/b".to_vec(),
                path_truncated: false,
                known_as: Some(b"/models/a".to_vec()),
                key: KEY,
                watched: KEY,
                links: 1,
            };
            check(What::FileChange(change), 1);
        }
    }

    #[test]
    fn a_connection_a_program_a_socket_and_a_loss() {
        let connect = Connect {
            protocol: crate::event::Protocol::Udp,
            address: [203, 0, 113, 7].into(),
            port: 443,
            how: ConnectHow::Begin,
            denied_by: None,
            source: None,
            net_ns: NetNs::default(),
        };
        check(What::Connect(connect), 2);
        check(What::Exec(Exec { exe: b"/bin/\xffcat".to_vec(), deleted: true, ..Exec::default() }), 2);
        check(What::SocketOpen(SocketOpen { family: 17, kind: 3, protocol: 0 }), 1);
        check(What::Loss(Loss { place: "ring", what: "file_open".into(), cpu: None, cgroup_id: None, count: 2 }), 1);
    }
}
