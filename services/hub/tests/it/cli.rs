use clap::{CommandFactory, Parser};
use hubspoke::cli::HubCli;

#[test]
fn clap_accepts_the_definitions() {
    HubCli::command().debug_assert();
}

#[test]
fn commands_that_parse_and_commands_that_do_not() {
    for line in [
        "hub",
        "hub up --log 5",
        "hub status --json --registry http://127.0.0.1:1",
        "hub status log",
        "hub status log/127.0.0.1:20002 --json",
        "hub demo --rate 200 --duration 1m30s --gateway http://127.0.0.1:1 --json",
        "hub watch",
        "hub watch --once --json",
        "hub logs -f --since 10m --grep x --source visit --trace 4bf9 --level warn -n 5 --json",
        "hub logs --gateway http://127.0.0.1:1",
        "hub logs --gateway 127.0.0.1:1 --full",
        "hub status --registry localhost:20000",
        "hub status --registry https://127.0.0.1:20000",
        "hub drain log/127.0.0.1:20002",
        "hub undrain log/log-1 --registry http://127.0.0.1:1",
        "hub deregister log/log-1",
        "hub registry protect",
        "hub registry protect off",
        "hub up --insecure",
        "hub up --tls",
        "hub token new --member shop --member cart --expires 90d --file t",
        "hub token new --operator --name ada --out token",
        "hub token init --member log --operator hub",
        "hub token list",
        "hub token revoke shop",
        "hub cert init --name Office --expires 5y --dir c",
        "hub cert issue shop cart --host shop.example,10.0.0.5 --host *.shop.example --ca c --renew",
        "hub cert issue --operator ada --reader eve",
        "hub cert show certs/shop/tls.crt",
    ] {
        assert!(HubCli::try_parse_from(line.split(' ')).is_ok(), "{line}");
    }
    for line in [
        "hub demo --rate 0",
        "hub demo --duration soon",
        "hub logs -f --gateway http://127.0.0.1:1",
        "hub logs --full --json",
        "hub drain log",
        "hub drain",
        "hub status Log",
        "hub status log/",
        "hub cert issue",
        "hub cert issue Shop",
        "hub cert issue shop --host *.localhost",
        "hub cert issue shop --host https://shop.example",
        "hub cert issue shop --renew --force",
        "hub registry",
        "hub registry protect maybe",
    ] {
        assert!(HubCli::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}
