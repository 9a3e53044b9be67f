//! Files of profiles as AWS' tools write them, and as people do.

use super::*;

fn read(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Profile, Failure> {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    for (name, text) in files {
        std::fs::write(home.path().join(".aws").join(name), text).unwrap();
    }
    let mut pairs = vec![("HOME", home.path().to_str().unwrap())];
    pairs.extend(variables);
    Profile::read(&Environment::from_pairs(pairs))
}

fn key_id(profile: &Profile) -> Option<&str> {
    profile.keys.as_ref().map(|keys| keys.access_key_id.as_str())
}

const CREDENTIALS: &str = "
# kept by hand
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key=abc/def+ghi=  # half of it is '='

[work]
  ; a comment
aws_access_key_id=AKIAWORK
aws_secret_access_key = sss
aws_session_token = ttt
";

const CONFIG: &str = "
[default]
region = eu-central-1

[profile work]
region = us-west-2
endpoint_url = https://s3.example.org
s3 =
    addressing_style = path
[profile \"two words\"]
region = x
";

#[test]
fn both_files_make_a_profile() {
    let files = [("credentials", CREDENTIALS), ("config", CONFIG)];
    let profile = read(&files, &[]).ok().unwrap();
    assert_eq!(key_id(&profile), Some("AKIADEFAULT"));
    assert_eq!(profile.keys.unwrap().secret_access_key, "abc/def+ghi=");
    assert_eq!(profile.region.as_deref(), Some("eu-central-1"));

    let profile = read(&files, &[("AWS_PROFILE", "work")]).ok().unwrap();
    assert_eq!(key_id(&profile), Some("AKIAWORK"));
    assert_eq!(profile.keys.unwrap().session_token.as_deref(), Some("ttt"));
    assert_eq!(profile.endpoint.as_deref(), Some("https://s3.example.org"));

    let profile = read(&files, &[("AWS_PROFILE", "two words")]).ok().unwrap();
    assert_eq!((key_id(&profile), profile.region.as_deref()), (None, Some("x")));
}

#[test]
fn no_files_say_nothing() {
    assert!(read(&[], &[]).ok().unwrap() == Profile::default());
    assert!(Profile::read(&Environment::default()).ok().unwrap() == Profile::default());
}

#[test]
fn what_can_not_be_followed_is_refused_by_name() {
    let refused =
        |files: &[(&str, &str)], variables: &[(&str, &str)]| read(files, variables).err().unwrap().detail;
    assert!(refused(&[("config", CONFIG)], &[("AWS_PROFILE", "nobody")]).contains("'nobody'"));
    let sso = "[default]\nsso_session = corp\nregion = x\n";
    assert!(refused(&[("config", sso)], &[]).contains("sso_session"));
    let half = "[default]\naws_access_key_id = AKIA\n";
    assert!(refused(&[("credentials", half)], &[]).contains("aws_secret_access_key"));
    // Rule 11: the half that is there is not shown.
    let half = "[default]\naws_secret_access_key = hidden\n";
    assert!(!refused(&[("credentials", half)], &[]).contains("hidden"));
}

#[test]
fn garbage_is_passed_over() {
    let garbage = "=\n[\n]x[\n[default\nregion = a\n\u{0}\n[default] trailing\nREGION=b\n";
    assert_eq!(read(&[("config", garbage)], &[]).ok().unwrap().region.as_deref(), Some("b"));
}
