//! The definition is sound, and its defaults are the library's.

use clap::CommandFactory;

use super::*;

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

/// Rule 11: what could be a secret has no flag.
#[test]
fn no_flag_takes_a_secret() {
    for command in Cli::command().get_subcommands() {
        for argument in command.get_arguments() {
            let name = argument.get_id().as_str();
            for word in ["key", "secret", "token", "password", "credential"] {
                assert!(!name.contains(word), "{} --{name}", command.get_name());
            }
        }
    }
}

/// The defaults that the help promises are the library's own.
#[test]
fn defaults_are_the_librarys() {
    let cli = Cli::parse_from(["lsvd", "serve", "memory://a/b"]);
    let Command::Serve(serve) = cli.command else { panic!("serve was asked for") };
    let library = lsvd_volume::OpenOptions::default();
    assert_eq!(serve.limits.cache, library.cache_bytes_max);
    assert_eq!(serve.limits.map_memory, library.map_bytes_max);
    assert_eq!(serve.upkeep.gc_target.to_bits(), library.upkeep.collect.target.to_bits());
    assert_eq!(serve.upkeep.gc_waste_min, library.upkeep.collect.waste_bytes_min);
    assert_eq!(serve.upkeep.checkpoint_interval, library.upkeep.checkpoint_age);
    assert_eq!(serve.upkeep.delete_after, None, "{:?} is what the help says", library.upkeep.delete_after);
    assert_eq!(library.upkeep.delete_after, Duration::from_secs(300));
    assert_eq!(serve.limits.buffer, library.buffer_bytes_max);
    assert_eq!(serve.limits.batch, library.batch_bytes_max);
    assert_eq!(serve.limits.batch_age, library.batch_age_max);
    assert_eq!(serve.limits.uploads, library.uploads_max);
    assert_eq!(serve.limits.flush_uploads, library.flush_uploads_max);
    assert_eq!(serve.limits.fetches, library.fetches_max);
    assert_eq!(serve.limits.io_timeout, library.io_timeout);
    let journal = lsvd_volume::JournalOptions::directory(std::path::Path::new("j"));
    assert_eq!(serve.journal.journal_size, journal.bytes_max);
    let cli = Cli::parse_from(["lsvd", "attach", "nbd://host/db1", "/dev/nbd0"]);
    let Command::Attach(attach) = cli.command else { panic!("attach was asked for") };
    let library = lsvd_nbd::attach::AttachOptions::default();
    assert_eq!(attach.connections, library.connections);
    assert_eq!(attach.block_size, library.block_size_bytes);
    assert_eq!(attach.timeout, library.timeout);
    assert_eq!(attach.dead_conn_timeout, library.dead_connection_timeout);
    let Command::Adopt(adopt) = Cli::parse_from(["lsvd", "adopt", "memory://a/b", "--size", "1M"]).command
    else {
        panic!("adopt was asked for")
    };
    let library = lsvd_volume::AdoptOptions::new(1 << 20);
    assert_eq!(adopt.quiet_for, library.quiet_for);
    assert_eq!(adopt.log_prefix, library.log_prefix);
    assert_eq!(adopt.window, library.create.window);
    assert_eq!(lsvd_volume::ObjectFormat::from(adopt.log_format), library.create.log_format);
}

/// `--log-format` is how lines are written, but for the commands that make a volume: its log's, then.
#[test]
fn log_lines_and_the_log_have_formats_of_their_own() {
    let lines = |arguments: &[&str]| Cli::try_parse_from(arguments).map(|cli| cli.log_format());
    assert_eq!(lines(&["lsvd", "--log-format", "json", "serve", "memory://a/b"]).ok(), Some(LogFormat::Json));
    assert_eq!(lines(&["lsvd", "serve", "memory://a/b", "--log-format", "json"]).ok(), Some(LogFormat::Json));
    assert_eq!(lines(&["lsvd", "info", "memory://a/b"]).ok(), Some(LogFormat::Text));
    let create =
        ["lsvd", "--log-format", "json", "create", "memory://a/b", "--size", "1M", "--log-format", "1"];
    let cli = Cli::try_parse_from(create).unwrap();
    assert_eq!(cli.log_format(), LogFormat::Json);
    let Command::Create(create) = cli.command else { panic!("create was asked for") };
    assert_eq!(create.log_format, ObjectFormat::V1);
    assert!(lines(&["lsvd", "create", "memory://a/b", "--size", "1M", "--log-format", "json"]).is_err());
}

#[test]
fn a_gc_target_is_a_ratio_or_off() {
    let target = |text: &str| serve::parse_gc_target(text);
    assert_eq!(target("1.05"), Ok(1.05));
    assert_eq!(target("off"), Ok(f64::INFINITY));
    for wrong in ["1", "1.04", "-2", "101", "inf", "NaN", "0.5", "", "30%"] {
        assert!(target(wrong).is_err(), "{wrong}");
    }
}
