//! Completions for shells, and the manual.

use std::io::Write as _;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use hubspoke_protocol::CatalogView;

/// The hidden command with which the completions ask for names.
pub(crate) const COMPLETE: &str = "__complete";

/// The completion script of a shell. It completes the names of services and instances from the registry.
pub(crate) fn completions(shell: Shell, command: &mut Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "hub", &mut script);
    let own = match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        _ => "",
    };
    let script = String::from_utf8_lossy(&script);
    // clap's script for bash offers hidden commands after `help`.
    let hidden = command.get_subcommands().filter(|command| command.is_hide_set());
    hidden.fold(script.into_owned(), |script, command| {
        script.replace(&format!(" {} ", command.get_name()), " ")
    }) + own
}

const BASH: &str = r#"
_hub_names() {
    _hub "$@"
    local word=${COMP_WORDS[COMP_CWORD]}
    case ${COMP_WORDS[1]} in
        status | stop | drain | undrain | deregister)
            [[ $word == -* ]] || COMPREPLY+=($(compgen -W "$(hub __complete "${COMP_WORDS[1]}" 2>/dev/null)" -- "$word"))
            ;;
    esac
}
complete -F _hub_names -o nosort -o bashdefault -o default hub
"#;

const ZSH: &str = r#"
_hub_names() {
    case $words[2] in
        status | stop | drain | undrain | deregister)
            [[ $words[CURRENT] == -* ]] || (( CURRENT != 3 )) || compadd -- ${(f)"$(hub __complete $words[2] 2>/dev/null)"}
            ;;
    esac
    _hub "$@"
}
compdef _hub_names hub
"#;

const FISH: &str = r#"
for command in status stop drain undrain deregister
    complete -c hub -n "__fish_seen_subcommand_from $command" -f -a "(hub __complete $command 2>/dev/null)"
end
"#;

/// The names that may follow a command: services, or instances as `SERVICE/INSTANCE`.
pub(crate) fn candidates(command: &str, catalog: &CatalogView) -> Vec<String> {
    if command == "status" {
        return catalog.services.keys().cloned().collect();
    }
    let instances = catalog.services.iter().flat_map(|(name, instances)| {
        instances.iter().map(move |instance| format!("{name}/{}", instance.info.instance_id()))
    });
    instances.collect()
}

/// Writes the manual: a page for `hub` and one for each of its commands.
///
/// # Errors
/// If a file can't be written.
pub(crate) fn manual(command: Command, dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(command, dir)
}

/// The page for `hub`, as text for `man -l -`.
///
/// # Errors
/// If it can't be rendered.
pub(crate) fn page(command: Command) -> std::io::Result<String> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    page.flush()?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::HubCli;

    #[test]
    fn completions_know_the_commands_and_ask_for_names() {
        for (shell, function) in
            [(Shell::Bash, "_hub_names"), (Shell::Zsh, "_hub_names"), (Shell::Fish, "__complete")]
        {
            let script = completions(shell, &mut HubCli::command());
            assert!(script.contains("drain") && script.contains(function), "{shell}");
            assert!(!script.contains(" __supervise "), "{shell}: hidden commands stay hidden");
        }
    }

    #[test]
    fn the_manual_has_a_page_for_each_command() {
        let dir = tempfile::tempdir().unwrap();
        manual(HubCli::command(), dir.path()).unwrap();
        assert!(dir.path().join("hub-run.1").is_file());
        assert!(page(HubCli::command()).unwrap().contains("hub"));
    }
}
