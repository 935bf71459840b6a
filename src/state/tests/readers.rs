use std::sync::atomic::{AtomicBool, Ordering};

use super::{Fixture, document};

/// Whoever reads while a thousand documents are applied sees each of them whole
/// or not at all, and never goes back to an older one.
#[test]
fn one_reader_sees_one_generation() {
    const DOCUMENTS: u16 = 1000;
    let edge = Fixture::new();
    let apply = |n: u16| {
        let url = format!("http://127.0.0.1:{n}");
        let name = format!("cell{n}");
        // One in three is refused in between.
        if n.is_multiple_of(3) {
            edge.apply(&document(
                &n.to_string(),
                &[(&name, &url)],
                &[("acme", "nowhere")],
            ));
        }
        edge.changed(&document(
            &n.to_string(),
            &[(&name, &url)],
            &[("acme", &name)],
        ));
    };
    apply(1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut last = 0;
                    let mut reads = 0_u64;
                    while !done.load(Ordering::Relaxed) {
                        let generation = edge.state.current().expect("there is always one");
                        let n = generation.number;
                        assert!(n >= last, "{n} after {last}");
                        last = n;
                        reads += 1;
                        assert_eq!(generation.table.version(), n.to_string());
                        for key in [b"acme".as_slice(), b"nobody"] {
                            let (placement, _) = generation.route(key);
                            assert_eq!(placement.name_header, format!("cell{n}"));
                            let backends = placement.backends();
                            assert_eq!(backends.len(), 1);
                            assert_eq!(backends[0].origin.url, format!("http://127.0.0.1:{n}"));
                            assert_eq!(u64::from(backends[0].address.port()), n);
                        }
                        let status = edge.state.status();
                        let shown = status.generation.expect("there is one");
                        assert_eq!(status.version, Some(shown.to_string()));
                        assert!(shown >= n);
                    }
                    (last, reads)
                })
            })
            .collect();
        // Also when an assertion here fails, or the readers would never end.
        let writing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (2..=DOCUMENTS).for_each(apply);
        }));
        done.store(true, Ordering::Relaxed);
        writing.expect("every document is applied");
        for reader in readers {
            let (last, reads) = reader.join().expect("every read is consistent");
            assert!(last <= u64::from(DOCUMENTS) && reads > 0);
        }
    });
    assert_eq!(edge.metric("cellgate_generations_alive"), Some(1.0));
}
