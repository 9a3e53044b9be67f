//! Amazon S3, Cloudflare R2 and every server that speaks the same protocol.
//!
//! Decides endpoint, region and credentials itself, from options, environment and profile in that order, and hands
//! `object_store` the outcome. Invariant: a custom endpoint never makes the machine's role be asked for, nor sent.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use url::Url;

use super::http::Connector;
use super::{client_options, endpoint, misconfigured, no_credentials, no_retries, refused};
use crate::classify::Failure;
use crate::environment::Environment;
use crate::open::StoreOptions;
use crate::profile::{Keys, Profile, RenewedKeys};
use crate::url::{BucketUrl, Scheme};

/// Variables that are passed on as they are, apart from those that are read here.
const PASSED_ON: [&str; 10] = [
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_REQUEST_PAYER",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "AWS_IMDSV1_FALLBACK",
    "AWS_METADATA_ENDPOINT",
    "AWS_ROLE_SESSION_NAME",
];

/// Where the signature's key comes from, in the order in which it is looked for.
#[derive(PartialEq, Eq)]
pub(super) enum Credentials {
    Unsigned,
    Static(Keys),
    /// A profile's keys as they were read; they may be renewed in its files.
    Profile(Keys),
    /// The variables by which a cluster or a task hands out a role; `object_store` follows them.
    Role(&'static [&'static str]),
    Instance,
}

/// How the bucket is reached.
pub(super) struct Settings {
    pub(super) endpoint: Option<Url>,
    pub(super) region: String,
    pub(super) virtual_hosted: bool,
    pub(super) allow_http: bool,
    pub(super) credentials: Credentials,
}

/// The store, and whether its credentials can be renewed while the process runs.
pub(crate) fn open(url: &BucketUrl, options: &StoreOptions) -> Result<(Arc<dyn ObjectStore>, bool), Failure> {
    let (store, settings) = build(url, options)?;
    let renewable = !matches!(settings.credentials, Credentials::Unsigned | Credentials::Static(_));
    Ok((Arc::new(store), renewable))
}

impl Settings {
    /// Where requests for the bucket itself go, without a slash at the end.
    pub(super) fn bucket_url(&self, bucket: &str) -> String {
        let region = &self.region;
        match (&self.endpoint, self.virtual_hosted) {
            (Some(endpoint), true) => endpoint.as_str().trim_end_matches('/').to_owned(),
            (Some(endpoint), false) => format!("{}/{bucket}", endpoint.as_str().trim_end_matches('/')),
            (None, true) => format!("https://{bucket}.s3.{region}.amazonaws.com"),
            (None, false) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        }
    }
}

pub(super) fn build(url: &BucketUrl, options: &StoreOptions) -> Result<(AmazonS3, Settings), Failure> {
    let environment = &options.environment;
    let settings = settings(url.bucket(), options)?;
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client_options(settings.allow_http))
        .with_http_connector(Connector::new(environment))
        .with_retry(no_retries())
        .with_bucket_name(url.bucket())
        .with_region(&settings.region)
        .with_virtual_hosted_style_request(settings.virtual_hosted)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    for name in PASSED_ON {
        builder = with_variable(builder, environment, name);
    }
    let mut secrets = Vec::new();
    builder = match &settings.credentials {
        Credentials::Unsigned => builder.with_skip_signature(true),
        Credentials::Static(keys) => {
            secrets.push(keys.secret_access_key.as_str());
            secrets.extend(keys.session_token.as_deref());
            let builder = builder
                .with_access_key_id(&keys.access_key_id)
                .with_secret_access_key(&keys.secret_access_key);
            keys.session_token.iter().fold(builder, |builder, token| builder.with_token(token))
        }
        Credentials::Profile(keys) => builder.with_credentials(Arc::new(RenewedKeys::new(environment, keys))),
        Credentials::Role(names) => {
            names.iter().fold(builder, |builder, name| with_variable(builder, environment, name))
        }
        Credentials::Instance => builder,
    };
    match builder.build() {
        Ok(store) => Ok((store, settings)),
        Err(error) => Err(refused(&error, environment, &secrets)),
    }
}

fn with_variable(builder: AmazonS3Builder, environment: &Environment, name: &str) -> AmazonS3Builder {
    match (environment.get(name), name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()) {
        (Some(value), Ok(key)) => builder.with_config(key, value),
        _ => builder,
    }
}

pub(super) fn settings(bucket: &str, options: &StoreOptions) -> Result<Settings, Failure> {
    let environment = &options.environment;
    let unsigned = options.skip_signature || environment.is_on("AWS_SKIP_SIGNATURE");
    let keys = if unsigned { None } else { keys_of_environment(environment)? };
    let region = options.region.as_deref().filter(|region| !region.is_empty());
    let region_of_environment = environment.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let endpoint_of_environment =
        environment.first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]);
    // With keys in the environment a profile is of interest only for what they leave open, and only if it was named.
    let profile = match unsigned || (keys.is_some() && environment.get("AWS_PROFILE").is_none()) {
        true => Profile::default(),
        false => Profile::read(environment)?,
    };

    let allow_http = options.allow_http || environment.is_on("AWS_ALLOW_HTTP");
    let endpoint = endpoint(options, endpoint_of_environment.or(profile.endpoint.as_deref()), allow_http)?;
    let host = endpoint.as_ref().and_then(Url::host_str).unwrap_or_default();
    let aws_itself = endpoint.is_none() || is_aws(host);
    let region = if host.ends_with(".r2.cloudflarestorage.com") {
        // A region that the environment names is AWS', and R2 refuses it.
        region.unwrap_or("auto")
    } else {
        region.or(region_of_environment).or(profile.region.as_deref()).unwrap_or("us-east-1")
    };
    let virtual_hosted = match options.path_style {
        Some(path_style) => !path_style,
        None => environment.is_on("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
    };
    let credentials = match (unsigned, keys, profile.keys) {
        (true, ..) => Credentials::Unsigned,
        (false, Some(keys), _) => Credentials::Static(keys),
        (false, None, Some(keys)) => Credentials::Profile(keys),
        (false, None, None) => role(environment, options.instance_credentials, aws_itself)?,
    };
    let region = region.to_owned();
    let endpoint = match endpoint {
        Some(endpoint) if virtual_hosted => Some(with_bucket_in_host(endpoint, bucket)?),
        endpoint => endpoint,
    };
    Ok(Settings { endpoint, region, virtual_hosted, allow_http, credentials })
}

fn is_aws(host: &str) -> bool {
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|domain| host.ends_with(domain))
}

fn keys_of_environment(environment: &Environment) -> Result<Option<Keys>, Failure> {
    match (environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(access_key_id), Some(secret_access_key)) => Ok(Some(Keys {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret_access_key.to_owned(),
            session_token: environment.get("AWS_SESSION_TOKEN").map(str::to_owned),
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(misconfigured("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")),
        (None, Some(_)) => Err(misconfigured("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not")),
    }
}

/// The role of the machine, task or pod, where that may be used.
fn role(environment: &Environment, allowed: bool, aws_itself: bool) -> Result<Credentials, Failure> {
    const WEB_IDENTITY: [&str; 3] = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL_STS"];
    const TASK: [&str; 1] = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
    const POD: [&str; 2] = ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];
    let set = |names: &[&str]| names.iter().all(|name| environment.get(name).is_some());
    if set(&WEB_IDENTITY[..2]) && (aws_itself || set(&WEB_IDENTITY)) {
        return Ok(Credentials::Role(&WEB_IDENTITY));
    }
    match (aws_itself, allowed) {
        (true, true) if set(&TASK) => Ok(Credentials::Role(&TASK)),
        (true, true) if set(&POD) => Ok(Credentials::Role(&POD)),
        (true, true) => Ok(Credentials::Instance),
        (true, false) => Err(no_credentials(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; this machine's role may not be used",
        )),
        (false, _) => Err(no_credentials(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; this machine's role is for AWS itself and \
             is not used with an endpoint of its own",
        )),
    }
}

fn with_bucket_in_host(mut endpoint: Url, bucket: &str) -> Result<Url, Failure> {
    let by_name = matches!(endpoint.host(), Some(url::Host::Domain(_)));
    let host = format!("{bucket}.{}", endpoint.host_str().unwrap_or_default());
    if !by_name || endpoint.set_host(Some(&host)).is_err() {
        return Err(misconfigured("the bucket can not be in the host name of this endpoint: use path style"));
    }
    Ok(endpoint)
}

/// The least IAM policy, as JSON, with which this URL's volume can be created, served and collected; `None` where the
/// store is not S3.
///
/// `s3:ListBucket` is held to the prefix where a request has one (`…IfExists`): a GET has none, and AWS answers a GET
/// of a missing object with 404 only to those who may list. Without that, every missing object would look forbidden.
pub fn iam_policy(url: &BucketUrl) -> Option<String> {
    if url.scheme() != Scheme::S3 {
        return None;
    }
    let arn = format!("arn:aws:s3:::{}", url.bucket());
    let path = url.path();
    let (objects, condition) = match path.as_str() {
        "" => (format!("{arn}/*"), String::new()),
        path => {
            let list = format!(
                ",\n      \"Condition\": {{ \"StringLikeIfExists\": {{ \"s3:prefix\": [{}, {}] }} }}",
                json(path),
                json(&format!("{path}/*"))
            );
            (format!("{arn}/{path}/*"), list)
        }
    };
    Some(format!(
        r#"{{
  "Version": "2012-10-17",
  "Statement": [
    {{
      "Effect": "Allow",
      "Action": "s3:ListBucket",
      "Resource": {}{condition}
    }},
    {{
      "Effect": "Allow",
      "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
      "Resource": {}
    }}
  ]
}}"#,
        json(&arn),
        json(&objects)
    ))
}

/// A JSON string. A [`BucketUrl`] holds no control characters and no backslash.
fn json(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\\\""))
}
