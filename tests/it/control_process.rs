//! The control plane as a process: how it starts, what it keeps, how it ends.

use serde_json::json;

use crate::harness::ControlProcess;

#[tokio::test]
async fn it_starts_with_nothing_and_ends_when_told() {
    let control = ControlProcess::builder().start().await;
    let health = control.get("/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json(), json!({"status": "healthy"}));
    assert_eq!(control.get("/nowhere").await.status, 404);
    let metrics = control.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let metrics = metrics.text();
    for line in [
        "cellgate_control_generation 0",
        "cellgate_control_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 1",
        "cellgate_control_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}:\n{metrics}");
    }
    control.signal(libc::SIGTERM);
    let ended = control.ended().await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.log.contains("ended"), "{}", ended.log);
}
