use super::*;

const PROCESS: Process = Process::new("visit", "1.2.3");
const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

fn config(otlp_endpoint: Option<&str>) -> Telemetry {
    let otlp_endpoint = otlp_endpoint.map(str::to_owned);
    Telemetry { otlp_endpoint, ..crate::config::Common::of(&PROCESS).unwrap().telemetry }
}

fn read(config: &Telemetry, vars: &[(&str, &str)]) -> Result<TelemetrySettings, String> {
    let vars: Vec<_> = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    TelemetrySettings::read(&PROCESS, config, &vars).map_err(|error| error.to_string())
}

fn url(endpoint: Option<Endpoint>) -> Option<String> {
    endpoint.map(|endpoint| endpoint.url)
}

#[test]
fn nothing_is_exported_unless_asked_for() {
    for vars in [
        &[][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_SERVICE_NAME", "x")],
        &[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")],
        &[
            ENDPOINT,
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_LOGS_EXPORTER", "none"),
        ],
        // Without an endpoint, the variables are ignored: they may be meant for other programs.
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "xray")],
        &[
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_SDK_DISABLED", "yes"),
        ],
    ] {
        assert!(!read(&config(None), vars).unwrap().exports(), "{vars:?}");
    }
    assert!(!read(&config(Some("")), &[]).unwrap().exports());
    // Propagation follows the list if all of it is known.
    for (list, propagated) in
        [("b3,tracecontext", (true, true)), ("baggage", (false, true)), ("none", (false, false))]
    {
        let settings = read(&config(None), &[("OTEL_PROPAGATORS", list)]).unwrap();
        assert_eq!((settings.trace_context, settings.baggage), propagated, "{list}");
    }
    // A signal without an endpoint is not exported, and its variables are ignored.
    let logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://collector:4318/v1/logs");
    let settings = read(&config(None), &[logs, ("OTEL_TRACES_EXPORTER", "zipkin")]).unwrap();
    assert!(settings.traces.is_none() && settings.logs.is_some());
}

#[test]
fn a_signals_own_variable_overrides_the_general_one_and_that_the_configuration() {
    let config = config(Some("http://from-config:1/"));
    let settings = read(&config, &[]).unwrap();
    assert_eq!(url(settings.traces).as_deref(), Some("http://from-config:1/v1/traces"));
    assert_eq!(url(settings.logs).as_deref(), Some("http://from-config:1/v1/logs"));
    let vars = [ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:2/as/it/is")];
    let settings = read(&config, &vars).unwrap();
    assert_eq!(url(settings.traces).as_deref(), Some("http://traces:2/as/it/is"));
    assert_eq!(url(settings.metrics).as_deref(), Some("http://collector:4318/v1/metrics"));
}

#[test]
fn the_standard_variables_are_honoured() {
    let settings = read(
        &config(None),
        &[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, x-tenant = a"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "700"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "none"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "20"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_PROPAGATORS", "tracecontext"),
        ],
    )
    .unwrap();
    let (traces, logs) = (settings.traces.unwrap(), settings.logs.unwrap());
    assert_eq!(traces.headers["authorization"], "Bearer x");
    assert_eq!(traces.headers["x-tenant"], "a");
    assert_eq!((traces.timeout, logs.timeout), (Duration::from_millis(1500), Duration::from_millis(700)));
    assert_eq!((traces.gzip, logs.gzip), (true, false));
    assert_eq!(settings.spans, QueueLimits { size: 100, batch: 100, delay: Duration::from_secs(5) });
    assert_eq!(settings.records, QueueLimits { size: 2048, batch: 512, delay: Duration::from_millis(20) });
    assert_eq!(settings.metrics_interval, Duration::from_secs(5));
    assert_eq!(settings.temporality, Temporality::Delta);
    assert_eq!(format!("{:?}", settings.sampler), "ParentBased(TraceIdRatioBased(0.25))");
    assert_eq!((settings.trace_context, settings.baggage), (true, false));
}

#[test]
fn the_environment_overrides_the_resource() {
    let resource = |vars: &[(&str, &str)]| {
        let resource = read(&config(None), vars).unwrap().resource("visit", "visit-1");
        move |key: &'static str| resource.get(&key.into()).map(|value| value.to_string())
    };
    let ours = resource(&[ENDPOINT]);
    assert_eq!(ours("service.name").as_deref(), Some("visit"));
    assert_eq!(ours("service.instance.id").as_deref(), Some("visit-1"));
    assert_eq!(ours("service.version").as_deref(), Some("1.2.3"));
    assert_eq!(ours("telemetry.sdk.language").as_deref(), Some("rust"));
    let theirs = resource(&[
        ENDPOINT,
        ("OTEL_SERVICE_NAME", "counter"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=no,service.version=9,deployment.environment.name=a%2Cb"),
    ]);
    assert_eq!(theirs("service.name").as_deref(), Some("counter"));
    assert_eq!(theirs("service.instance.id").as_deref(), Some("visit-1"));
    assert_eq!(theirs("service.version").as_deref(), Some("9"));
    assert_eq!(theirs("deployment.environment.name").as_deref(), Some("a,b"));
}

#[test]
fn an_unsupported_setting_is_refused_by_name() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://collector:4318/v1/logs"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_PROPAGATORS", "tracecontext,b3"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
    ] {
        let ratio = ("OTEL_TRACES_SAMPLER", "traceidratio");
        let mut vars = vec![(name, value), ENDPOINT];
        if name != ratio.0 {
            vars.push(ratio);
        }
        let error = read(&config(None), &vars).unwrap_err();
        assert!(error.starts_with(name), "{name}={value}: {error}");
    }
    let error = read(&config(Some("https://x")), &[]).unwrap_err();
    assert!(error.starts_with("telemetry.otlp_endpoint"), "{error}");
    let secret =
        read(&config(None), &[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "a=se\u{7}cret")]).unwrap_err();
    assert!(!secret.contains("cret"), "{secret}");
}
