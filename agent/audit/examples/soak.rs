use plumbline_audit::*;
use serde_json::json;
fn main() {
    let mut args = std::env::args().skip(1);
    let (dir, ballast) = (args.next().unwrap(), args.next());
    let key = SigningKey::from_seed("log.example/soak", &[1; 32]).unwrap();
    let options = Options { segment_bytes: 40_000, checkpoint_every_records: 16, ..Options::new(key) };
    let (mut log, recovery) = Log::open(dir.as_ref(), options).unwrap();
    eprintln!("{recovery:?}");
    let (mut errors, mut freed) = (0, false);
    loop {
        let mut draft = Draft::new(json!({"message": "x".repeat(300)}).as_object().unwrap().clone()).unwrap();
        let result = log.append(&mut draft).map(drop).and_then(|()| log.tick(std::time::Duration::ZERO).map(drop));
        if let Err(error) = result {
            errors += 1;
            if errors <= 3 || freed {
                eprintln!(
                    "seq {}: {error}: {:?}",
                    log.next_seq(),
                    std::error::Error::source(&error).map(|s| s.to_string())
                );
            }
            if errors == 50 {
                std::fs::remove_file(ballast.as_deref().unwrap()).unwrap();
                freed = true;
                eprintln!("freed");
            }
            if errors > 60 {
                break;
            }
        }
    }
    eprintln!("close: {:?}", log.close().map(|c| c.checkpoint.size).map_err(|e| e.to_string()));
}
