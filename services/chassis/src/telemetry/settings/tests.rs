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
        &[
            ENDPOINT,
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "console"),
        ],
        // Without an endpoint, the variables are ignored: they may be meant for other programs.
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "xray")],
    ] {
        assert!(!read(&config(None), vars).unwrap().exports(), "{vars:?}");
    }
    assert!(!read(&config(Some("")), &[]).unwrap().exports());
    // Propagation follows the names that are known.
    for (list, propagated) in [
        ("tracecontext,baggage,b3", (true, true)),
        ("b3,TraceContext", (true, false)),
        ("baggage", (false, true)),
        ("none", (false, false)),
        ("b3multi,xray,", (true, true)),
    ] {
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
fn what_operators_inject_is_honoured_or_ignored_with_one_warning_each() {
    let settings = read(
        &config(None),
        &[
            ENDPOINT,
            ("OTEL_PROPAGATORS", "tracecontext,baggage,b3"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_SDK_DISABLED", "1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a,a b=hush,alone"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,=x"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
            ("OTEL_LOGS_EXPORTER", "oltp"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Some"),
        ],
    )
    .unwrap();
    let traces = settings.traces.clone().unwrap();
    assert!(settings.metrics.is_some() && settings.logs.is_some());
    assert_eq!((traces.timeout, traces.gzip), (Duration::from_secs(10), false));
    assert_eq!(traces.headers, HashMap::from([("x-tenant".to_owned(), "a".to_owned())]));
    assert_eq!(settings.spans, QueueLimits { size: 2048, batch: 512, delay: Duration::from_secs(5) });
    assert_eq!(settings.metrics_interval, Duration::from_secs(60));
    assert_eq!(format!("{:?}", settings.sampler), "ParentBased(AlwaysOn)");
    assert!(settings.resource.is_empty(), "an invalid list is ignored as a whole");
    let warned = |name: &str| settings.warnings.iter().filter(|warning| warning.starts_with(name)).count();
    for name in [
        "OTEL_PROPAGATORS: \"b3\"",
        "OTEL_TRACES_SAMPLER: \"xray\"",
        "OTEL_SDK_DISABLED: \"1\"",
        "OTEL_EXPORTER_OTLP_PROTOCOL: \"http/json\"",
        "OTEL_EXPORTER_OTLP_COMPRESSION: \"zip\"",
        "OTEL_EXPORTER_OTLP_TIMEOUT: \"10s\"",
        "OTEL_EXPORTER_OTLP_HEADERS: ",
        "OTEL_RESOURCE_ATTRIBUTES: ",
        "OTEL_BSP_MAX_QUEUE_SIZE: \"many\"",
        "OTEL_METRIC_EXPORT_INTERVAL: \"-1\"",
        "OTEL_LOGS_EXPORTER: \"oltp\"",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE: \"Some\"",
    ] {
        assert_eq!(warned(name), 1, "{name}: {:?}", settings.warnings);
    }
    assert!(!settings.warnings.iter().any(|warning| warning.contains("hush")), "a token is shown");
}

#[test]
fn names_of_choices_are_read_in_any_case() {
    let settings = read(
        &config(None),
        &[
            ENDPOINT,
            ("OTEL_TRACES_SAMPLER", "ParentBased_TraceIdRatio"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/Protobuf"),
            ("OTEL_TRACES_EXPORTER", "console,OTLP"),
            ("OTEL_METRICS_EXPORTER", "None"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "700"),
        ],
    )
    .unwrap();
    assert_eq!(format!("{:?}", settings.sampler), "ParentBased(TraceIdRatioBased(1.0))");
    assert!(settings.metrics.is_none());
    let traces = settings.traces.unwrap();
    assert_eq!((traces.gzip, traces.timeout), (true, Duration::from_millis(700)));
    assert_eq!(settings.spans.batch, 512);
    let warned = [
        "OTEL_TRACES_EXPORTER",
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "OTEL_TRACES_SAMPLER_ARG",
    ];
    let names: Vec<_> = settings.warnings.iter().map(|warning| warning.split_once(':').unwrap().0).collect();
    assert_eq!(names, warned);
}

#[test]
fn an_endpoint_that_nothing_could_be_sent_to_is_refused_by_name() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "unix:///run/collector"),
    ] {
        let error = read(&config(None), &[(name, value), ENDPOINT]).unwrap_err();
        assert!(error.starts_with(name), "{name}={value}: {error}");
    }
    let error = read(&config(Some("ftp://x")), &[]).unwrap_err();
    assert!(error.starts_with("telemetry.otlp_endpoint"), "{error}");
    let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"), ("OTEL_SDK_DISABLED", "true")];
    assert!(read(&config(None), &disabled).is_ok_and(|settings| !settings.exports()));
}
