//! A kubelet that speaks gRPC over a socket, as it should and not.

use std::{future::Future, path::Path};

use expect_test::{Expect, expect};
use h2::server::SendResponse;
use hyper::{HeaderMap, Response, body::Bytes};
use prost::Message as _;
use tokio::net::UnixListener;

use super::{message::*, *};

/// What a kubelet does with the one question.
#[derive(Debug, Clone)]
enum Answer {
    /// As it should.
    List(ListResponse),
    /// A message of these bytes.
    Bytes(Vec<u8>),
    /// `grpc-status`, `grpc-message`.
    Refusal(&'static str, &'static str),
    /// The message is longer than it says, or never comes.
    Length(u32),
    /// HTTP without gRPC.
    Status(u16),
    /// The connection ends without an answer.
    Nothing,
    /// It is accepted, and nobody says a word.
    Silence,
}

/// Serves one connection.
async fn serve(listener: &UnixListener, answer: Answer) {
    let (stream, _) = listener.accept().await.unwrap();
    if matches!(answer, Answer::Silence) {
        std::future::pending::<()>().await;
    }
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/v1.PodResourcesLister/List");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        if matches!(answer, Answer::Nothing) {
            return;
        }
        respond_with(respond, &answer);
    }
}

fn respond_with(mut respond: SendResponse<Bytes>, answer: &Answer) {
    let head =
        |status: u16, kind: &str| Response::builder().status(status).header("content-type", kind).body(()).unwrap();
    let (message, length) = match answer {
        Answer::List(list) => (list.encode_to_vec(), None),
        Answer::Bytes(bytes) => (bytes.clone(), None),
        Answer::Length(length) => (Vec::new(), Some(*length)),
        Answer::Status(status) => {
            respond.send_response(head(*status, "text/html"), true).unwrap();
            return;
        }
        Answer::Refusal(..) | Answer::Nothing | Answer::Silence => (Vec::new(), None),
    };
    let mut body = respond.send_response(head(200, "application/grpc"), false).unwrap();
    let mut trailers = HeaderMap::new();
    if let Answer::Refusal(status, words) = answer {
        trailers.insert("grpc-status", status.parse().unwrap());
        trailers.insert("grpc-message", words.parse().unwrap());
    } else {
        let length = length.unwrap_or_else(|| u32::try_from(message.len()).unwrap());
        let framed = [&[0][..], &length.to_be_bytes(), &message].concat();
        body.send_data(framed.into(), false).unwrap();
        trailers.insert("grpc-status", "0".parse().unwrap());
    }
    body.send_trailers(trailers).unwrap();
}

/// What becomes of one question to such a kubelet.
async fn asked<T, F: Future<Output = T>>(answer: Answer, ask: impl FnOnce(PodResourcesConfig) -> F) -> T {
    let dir = tempfile::tempdir().unwrap();
    let config =
        PodResourcesConfig { socket: dir.path().join("kubelet.sock"), resources: vec!["example.com/h100".to_owned()] };
    let listener = UnixListener::bind(&config.socket).unwrap();
    tokio::select! {
        asked = ask(config) => asked,
        () = async { loop { serve(&listener, answer.clone()).await } } => unreachable!(),
    }
}

async fn allocations(config: PodResourcesConfig) -> Result<Vec<Allocation>, String> {
    client::list(&config.socket).await.map(|answer| config.allocations(answer)).map_err(|error| chain(&error))
}

/// One line for each device, or why there are none.
fn check(answer: Answer, expect: &Expect) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let said = match runtime.block_on(asked(answer, allocations)) {
        Ok(allocations) => {
            let line = |Allocation { holder, device }: Allocation| {
                format!("{}/{}/{} {device}\n", holder.namespace, holder.pod, holder.container)
            };
            allocations.into_iter().map(line).collect()
        }
        Err(error) => error,
    };
    expect.assert_eq(&said);
}

fn pod(namespace: &str, name: &str, containers: Vec<ContainerResources>) -> PodResources {
    PodResources { name: name.to_owned(), namespace: namespace.to_owned(), containers }
}

fn container(name: &str, resource: &str, ids: &[&str]) -> ContainerResources {
    let device_ids = ids.iter().map(|&id| id.to_owned()).collect();
    let devices = vec![ContainerDevices { resource_name: resource.to_owned(), device_ids }];
    ContainerResources { name: name.to_owned(), devices, dynamic_resources: Vec::new() }
}

fn claim(name: &str, driver: &str, device: &str) -> ContainerResources {
    let claimed = ClaimResource { driver_name: driver.to_owned(), device_name: device.to_owned() };
    let dynamic_resources = vec![DynamicResource { claim_resources: vec![claimed] }];
    ContainerResources { name: name.to_owned(), devices: Vec::new(), dynamic_resources }
}

fn list(pods: Vec<PodResources>) -> Answer {
    Answer::List(ListResponse { pod_resources: pods })
}

#[test]
fn gpus_of_containers_are_told_and_other_devices_are_not() {
    check(
        list(vec![
            pod(
                "serving",
                "vllm-0",
                vec![
                    container("engine", "nvidia.com/gpu", &["GPU-0", "GPU-1"]),
                    container("sidecar", "mellanox.com/rdma", &["mlx5_0"]),
                    container("net", "nvidia.com/hostdev", &["0"]),
                ],
            ),
            pod("serving", "tgi.a", vec![container("engine", "nvidia.com/mig-1g.10gb", &["MIG-7"])]),
            pod("batch", "shared", vec![container("job", "nvidia.com/gpu.shared", &["GPU-2::0", "GPU-2::1"])]),
            pod("batch", "own", vec![container("job", "example.com/h100", &["3"])]),
            pod(
                "batch",
                "claims",
                vec![claim("job", "gpu.nvidia.com", "gpu-4"), claim("net", "net.example.com", "eth-0")],
            ),
        ]),
        &expect![[r#"
            serving/vllm-0/engine GPU-0
            serving/vllm-0/engine GPU-1
            serving/tgi.a/engine MIG-7
            batch/shared/job GPU-2::0
            batch/shared/job GPU-2::1
            batch/own/job 3
            batch/claims/job gpu-4
        "#]],
    );
    check(list(Vec::new()), &expect![""]);
}

#[test]
fn what_kubernetes_would_not_call_a_pod_or_a_container_is_left_out() {
    let given = |name| container(name, "nvidia.com/gpu", &["GPU-0"]);
    check(
        list(vec![
            pod("Serving", "vllm-0", vec![given("engine")]),
            pod("", "vllm-0", vec![given("engine")]),
            pod("serving", "vllm/0", vec![given("engine")]),
            pod("serving", "vllm-0", vec![given("engine\"}\n"), given("right")]),
            pod("serving", "vllm-0", vec![container("long", "nvidia.com/gpu", &["x".repeat(129).as_str()])]),
        ]),
        &expect![[r#"
            serving/vllm-0/right GPU-0
        "#]],
    );
    let many: Vec<String> = (0..2000).map(|id| format!("GPU-{id}")).collect();
    let ids: Vec<&str> = many.iter().map(String::as_str).collect();
    let answer = ListResponse { pod_resources: vec![pod("a", "b", vec![container("c", "nvidia.com/gpu", &ids)])] };
    assert_eq!(PodResourcesConfig::default().allocations(answer).len(), MOST);
}

#[test]
fn a_kubelet_that_answers_otherwise_is_told_as_such() {
    check(
        Answer::Refusal("8", "rejected by rate limit"),
        &expect!["the kubelet answered ResourceExhausted: rejected by rate limit"],
    );
    check(
        Answer::Bytes(vec![0x0a, 0xff]),
        &expect![
            "the kubelet answered Internal: failed to decode Protobuf message: ListResponse.pod_resources: invalid varint"
        ],
    );
    check(
        Answer::Length(1 << 31),
        &expect![
            "the kubelet answered OutOfRange: Error, decoded message length too large: found 2147483648 bytes, the limit is: 4194304 bytes"
        ],
    );
    check(Answer::Length(7), &expect!["the kubelet answered Internal: Missing response message."]);
    check(
        Answer::Status(404),
        &expect!["the kubelet answered Unimplemented: grpc-status header missing, mapped from HTTP status code 404"],
    );
    check(Answer::Nothing, &expect!["the kubelet answered Unknown: transport error"]);
    check(Answer::Silence, &expect!["no whole answer within 10s"]);
}

#[test]
fn no_socket_is_no_kubelet_and_one_that_nobody_listens_at_is_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| runtime.block_on(client::list(path)).unwrap_err();
    assert!(matches!(error(&dir.path().join("none.sock")), AskError::NoSocket));
    let left = dir.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    assert!(chain(&error(&left)).contains("Connection refused"), "{}", chain(&error(&left)));
}

#[test]
fn what_a_kubelet_gave_is_forgotten_when_it_does_not_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let config = PodResourcesConfig { socket: dir.path().join("kubelet.sock"), ..PodResourcesConfig::default() };
        let listener = UnixListener::bind(&config.socket).unwrap();
        let (sender, mut inbox) = mpsc::channel(8);
        let (_stop, stopped) = watch::channel(false);
        let asking = tokio::spawn(run(config, sender, stopped));
        let given = vec![pod("a", "b", vec![container("c", "nvidia.com/gpu", &["GPU-0"])])];
        for (answer, expect) in [(list(given), Ok(1)), (Answer::Refusal("14", "restarting"), Err(0))] {
            tokio::spawn({
                let (stream, _) = listener.accept().await.unwrap();
                async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((_, respond))) = connection.accept().await {
                        respond_with(respond, &answer);
                    }
                }
            });
            let (Some(Message::Allocations(given)), Some(Message::Sample(sample))) =
                (inbox.recv().await, inbox.recv().await)
            else {
                panic!("what was given, and how the kubelet fares");
            };
            let known = if sample.points.is_ok() { Ok(given.len()) } else { Err(given.len()) };
            assert_eq!(known, expect, "{:?}", sample.points);
        }
        drop(inbox);
        asking.await.unwrap();
    });
}
