//! What RAS answers, round by round → what is told.

use super::*;

/// What is said of one rank in each round: its state, how many collectives it has called and how many it is behind; and what is told.
type Round = (State, u64, u64, Option<Told>);

#[track_caller]
fn check(rounds: &[Round]) {
    let mut progress = Progress::default();
    for (number, (state, called, behind, expect)) in rounds.iter().enumerate() {
        let known = Known { state: *state, place: String::new(), called: *called, behind: *behind };
        assert_eq!(progress.observe(&known), *expect, "round {number}");
    }
}

#[test]
fn who_is_behind_and_does_not_move_is_stuck_until_it_does() {
    use State::Running;
    check(&[(Running, 5, 1, None), (Running, 6, 1, None), (Running, 6, 1, Some(Told::Stuck)), (Running, 6, 2, None)]);
    check(&[(Running, 5, 1, None), (Running, 5, 1, Some(Told::Stuck)), (Running, 7, 0, Some(Told::Moves))]);
    // Nobody calls anything.
    check(&[(Running, 5, 0, None), (Running, 5, 0, None)]);
    check(&[(Running, 5, 1, None), (Running, 5, 1, Some(Told::Stuck)), (State::Ending, 5, 1, Some(Told::Moves))]);
    // Who ends it is behind for good.
    check(&[(Running, 5, 1, None), (State::Ending, 5, 1, None), (State::Ending, 5, 1, None)]);
}

#[test]
fn who_is_dead_or_has_failed_is_lost_at_once_and_who_does_not_answer_if_it_stays_so() {
    use State::{Dead, Failed, Running, Unresponsive};
    check(&[(Running, 5, 0, None), (Dead, 0, 0, Some(Told::Lost)), (Dead, 0, 0, None)]);
    check(&[(Failed(6), 5, 3, Some(Told::Lost)), (Failed(6), 5, 3, None)]);
    // Who is lost does not go on, though it was stuck.
    check(&[
        (Running, 5, 1, None),
        (Running, 5, 1, Some(Told::Stuck)),
        (Dead, 0, 0, Some(Told::Lost)),
        (Dead, 0, 0, None),
    ]);
    check(&[(Unresponsive, 0, 0, None), (Running, 5, 0, None), (Unresponsive, 0, 0, None)]);
    check(&[(Unresponsive, 0, 0, None), (Unresponsive, 0, 0, Some(Told::Lost)), (Dead, 0, 0, None)]);
}

#[test]
fn a_report_becomes_counts_of_states_and_those_who_are_behind() {
    let asked = Asked {
        pid: 7,
        name: "python3".to_owned(),
        network: Network { path: "/proc/7/ns/net".into(), inode: Some(1) },
    };
    let mut ras = Ras::of(true);
    ras.take(asked.clone(), Ok(job(&read(include_bytes!("testdata/status.json")).unwrap())));
    ras.take(asked.clone(), Err(AskError::Long.into()));
    let answers = std::mem::take(&mut ras.answers);
    let told: Vec<String> = ras.observe(answers).into_iter().map(|finding| finding.text).collect();
    let of = "RAS of NCCL, asked by way of python3 (7), of communicator 0x6afe1cc17717e1f4";
    let lost = "rank 2 (process 77 of 10.0.0.2) has failed: remote_error; rank 3 (process 78 of 10.0.0.2) is dead";
    assert_eq!(told, [format!("{of}: {lost}")]);
    let words = ras.points().into_iter().map(|point| {
        let labels: Vec<&str> = point.labels.iter().map(String::as_str).filter(|label| !label.is_empty()).collect();
        format!("{} {} {}", point.series.name, labels.join(" "), point.number().unwrap())
    });
    assert_eq!(
        words.collect::<Vec<_>>(),
        [
            "plumbline_nccl_ras_answers_total error 1",
            "plumbline_nccl_ras_answers_total report 1",
            "plumbline_nccl_ras_ranks 7 0x6afe1cc17717e1f4 running 2",
            "plumbline_nccl_ras_ranks 7 0x6afe1cc17717e1f4 ending 1",
            "plumbline_nccl_ras_ranks 7 0x6afe1cc17717e1f4 failed 1",
            "plumbline_nccl_ras_ranks 7 0x6afe1cc17717e1f4 unresponsive 1",
            "plumbline_nccl_ras_ranks 7 0x6afe1cc17717e1f4 dead 1",
            "plumbline_nccl_ras_behind 7 0x6afe1cc17717e1f4 1 1",
        ]
    );
}

#[test]
fn who_is_lost_is_told_once_though_nobody_answers_for_a_round_and_many_are_one_finding() {
    let asked = Asked {
        pid: 7,
        name: "python3".to_owned(),
        network: Network { path: "/proc/7/ns/net".into(), inode: Some(1) },
    };
    let dead = Known { state: State::Dead, place: "x".to_owned(), called: 0, behind: 0 };
    let of_comm = |ranks: u32| (0..ranks).map(|rank| (rank, dead.clone())).collect::<BTreeMap<_, _>>();
    let job: Job = (0..30).map(|comm| (format!("{comm:#x}"), of_comm(100))).collect();
    let mut ras = Ras { networks: [1].into(), ..Ras::of(true) };
    let told = ras.observe(vec![(asked.clone(), job.clone())]);
    assert_eq!(told.len(), MOST_FINDINGS);
    assert!(told[0].text.ends_with("rank 7 (x) is dead; 92 more"), "{}", told[0].text);
    assert!(ras.observe(Vec::new()).is_empty() && ras.points().is_empty());
    assert!(ras.observe(vec![(asked, job)]).is_empty());
    // Nobody is left of whom to ask: nothing of it is kept.
    assert!(ras.look([].into_iter(), Path::new("/proc")).is_empty() && ras.known.is_empty());
}

#[test]
fn who_was_stuck_is_not_any_more_when_nobody_knows_of_it() {
    let asked = Asked {
        pid: 7,
        name: "python3".to_owned(),
        network: Network { path: "/proc/7/ns/net".into(), inode: Some(1) },
    };
    let behind = |rank| (rank, Known { state: State::Running, place: "x".to_owned(), called: 5, behind: 1 });
    let job: Job = [("0xa".to_owned(), [behind(3), behind(4)].into()), ("0xb".to_owned(), [behind(0)].into())].into();
    let stuck = || {
        let mut ras = Ras { networks: [1].into(), ..Ras::of(true) };
        assert!(ras.observe(vec![(asked.clone(), job.clone())]).is_empty());
        let told = ras.observe(vec![(asked.clone(), job.clone())]);
        assert!(told.len() == 2 && told.iter().all(|finding| finding.kind == "nccl.ras.stuck"), "{told:?}");
        ras
    };
    let told = |findings: Vec<Finding>| findings.into_iter().map(|told| (told.kind, told.text)).collect::<Vec<_>>();
    let end = |comm: &str, ranks: &str| {
        ("nccl.ras.stuck.end", format!("RAS of NCCL does not tell of {ranks} of communicator {comm} any more"))
    };
    let mut ras = stuck();
    // Who does not answer this time may do so the next.
    assert!(ras.observe(Vec::new()).is_empty());
    let left: Job = [("0xb".to_owned(), [behind(0)].into())].into();
    assert_eq!(told(ras.observe(vec![(asked.clone(), left)])), [end("0xa", "rank 3 and rank 4")]);
    let nobody = told(stuck().look([].into_iter(), Path::new("/proc")));
    assert_eq!(nobody, [end("0xa", "rank 3 and rank 4"), end("0xb", "rank 0")]);
    let mut off = stuck();
    off.forget();
    assert!(off.look([].into_iter(), Path::new("/proc")).is_empty());
    // Another pod of the job tells of it still.
    let other = Asked { network: Network { path: "/proc/8/ns/net".into(), inode: Some(2) }, ..asked.clone() };
    let mut pods = Ras { networks: [1, 2].into(), ..Ras::of(true) };
    for _ in 0..2 {
        pods.observe(vec![(asked.clone(), job.clone()), (other.clone(), job.clone())]);
    }
    pods.networks = [2].into();
    assert!(pods.observe(vec![(other, job.clone())]).is_empty());
}

#[test]
fn one_process_of_each_network_namespace_is_asked() {
    let proc = Path::new("/proc");
    let own = std::process::id();
    let found = networks([own, own, u32::MAX].into_iter(), proc);
    assert_eq!(found.into_values().collect::<Vec<_>>(), [own]);
    assert!(Ras::of(false).look([own].into_iter(), proc).is_empty());
}
