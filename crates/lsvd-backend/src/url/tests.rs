//! URLs that are taken, URLs that are refused, and that refusals keep secrets.

use super::*;

fn parse(text: &str) -> BucketUrl {
    text.parse().unwrap_or_else(|e: UrlError| panic!("{text}: {e}"))
}

fn refused(text: &str) -> String {
    text.parse::<BucketUrl>().expect_err(text).to_string()
}

#[test]
fn every_scheme_is_parsed_and_printed_alike() {
    for text in [
        "file:///var/lib/lsvd/db1",
        "file:///",
        "file:///srv/my disks/db1",
        "memory://trial/db1",
        "s3://bucket",
        "s3://bucket/prefix/db1",
        "s3://bucket/prefix/",
        "az://container/db1",
        "gs://my_bucket/a/b/c",
    ] {
        let url = parse(text);
        assert_eq!(url.to_string().trim_end_matches('/'), text.trim_end_matches('/'));
        assert_eq!(parse(&url.to_string()).path(), url.path());
    }
    assert_eq!(parse("S3://bucket/x").scheme(), Scheme::S3);
}

#[test]
fn parts_are_what_they_seem() {
    let url = parse("s3://bucket/prefix/db1");
    assert_eq!((url.bucket(), url.path().as_str()), ("bucket", "prefix/db1"));
    assert_eq!(url.last_segment(), Some("db1"));
    assert_eq!(url.volume_name().unwrap(), "db1");
    let parent = url.parent().unwrap();
    assert_eq!(parent, parse("s3://bucket/prefix"));
    assert_eq!(parent.join("db1").unwrap(), url);
    assert_eq!(parse("s3://bucket").parent(), None);
    assert_eq!(parse("file:///a").parent().unwrap(), parse("file:///"));
}

#[test]
fn a_folder_is_no_volume() {
    for text in ["s3://bucket", "s3://bucket/", "s3://bucket/prefix/", "file:///"] {
        let error = parse(text).volume_name().expect_err(text).to_string();
        assert!(error.contains("names no volume"), "{error}");
    }
}

#[test]
fn refusals_say_what_to_write_instead() {
    for (text, says) in [
        ("ftp://host/x", "s3://"),
        ("/var/lib/db1", "file://"),
        ("s3:///db1", "bucket is missing"),
        ("s3://", "bucket is missing"),
        ("memory://", "bucket is missing"),
        ("file://var/lib", "three slashes"),
        ("file://", "absolute path"),
        ("s3://bucket//db1", "empty segment"),
        ("s3://bucket/a/../b", "'..'"),
        ("s3://bucket/db1?region=x", "query"),
        ("s3://bucket/db1#x", "fragment"),
        ("s3://bucket/db1@monday", "snapshots"),
        ("s3://bucket/a%20b", "decoded"),
        ("s3://bucket/a\nb", "control"),
        ("s3://bu cket/x", "bucket's name"),
        ("s3://host:9000/bucket", "endpoint"),
    ] {
        let error = refused(text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

/// Rule 11: what was typed may hold a secret, and is not repeated.
#[test]
fn credentials_are_refused_and_not_repeated() {
    for text in [
        "s3://AKIAEXAMPLE:SeCrEtKey@bucket/db1",
        "s3://AKIAEXAMPLE:SeCr/EtKey@bucket/db1",
        "AKIAEXAMPLE:SeCrEtKey",
        "AKIAEXAMPLE:SeCrEtKey://x",
        "az://container/db1?sig=SeCrEtKey",
    ] {
        let error = refused(text);
        assert!(!error.contains("SeCr") && !error.contains("EtKey") && !error.contains("AKIA"), "{error}");
    }
}

/// The log of an adopted volume may lie in a bucket's root.
#[test]
fn all_of_a_bucket_has_the_buckets_name() {
    let name = |text: &str| {
        let url: BucketUrl = text.parse().unwrap();
        url.volume_or_bucket_name().map(str::to_owned).map_err(|error| error.to_string())
    };
    assert_eq!(name("s3://acme"), Ok("acme".to_owned()));
    assert_eq!(name("s3://acme/"), Ok("acme".to_owned()));
    assert_eq!(name("s3://acme/x/db1"), Ok("db1".to_owned()));
    for none in ["file:///", "s3://acme/x/"] {
        assert!(name(none).unwrap_err().contains("names no volume"), "{none}");
    }
}
