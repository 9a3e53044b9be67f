//! Google Cloud Storage and servers that speak its XML protocol.
//!
//! Invariant: a custom endpoint never makes the machine's role or the user's own login be looked for, nor sent.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use url::Url;

use super::http::Connector;
use super::{client_options, endpoint, no_credentials, no_retries, refused};
use crate::classify::Failure;
use crate::open::StoreOptions;
use crate::url::BucketUrl;

/// Variables by which credentials are given, with the setting that each stands for.
const CREDENTIALS: [(&str, GoogleConfigKey); 6] = [
    ("GOOGLE_SERVICE_ACCOUNT", GoogleConfigKey::ServiceAccount),
    ("GOOGLE_SERVICE_ACCOUNT_PATH", GoogleConfigKey::ServiceAccount),
    ("SERVICE_ACCOUNT", GoogleConfigKey::ServiceAccount),
    ("GOOGLE_SERVICE_ACCOUNT_KEY", GoogleConfigKey::ServiceAccountKey),
    ("GOOGLE_BEARER_TOKEN", GoogleConfigKey::BearerToken),
    ("GOOGLE_APPLICATION_CREDENTIALS", GoogleConfigKey::ApplicationCredentials),
];

/// An account that signs nothing: the one way to keep `object_store` from looking for credentials, and from sending
/// a PUT with them although told to skip the signature.
const NOBODY: &str = r#"{"disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}"#;

pub(crate) fn open(url: &BucketUrl, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, Failure> {
    let environment = &options.environment;
    let allow_http = options.allow_http || environment.is_on("GOOGLE_ALLOW_HTTP");
    let endpoint = endpoint(options, environment.get("GOOGLE_BASE_URL"), allow_http)?;
    let google_itself =
        endpoint.as_ref().and_then(Url::host_str).is_none_or(|host| host.ends_with(".googleapis.com"));
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(client_options(allow_http))
        .with_http_connector(Connector::new(environment))
        .with_retry(no_retries())
        .with_bucket_name(url.bucket());
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint.as_str().trim_end_matches('/'));
    }
    let unsigned = options.skip_signature || environment.is_on("GOOGLE_SKIP_SIGNATURE");
    let given = CREDENTIALS.iter().find_map(|(name, key)| Some((key, environment.get(name)?)));
    builder = match given {
        _ if unsigned => builder.with_skip_signature(true).with_service_account_key(NOBODY),
        Some((key, value)) => builder.with_config(*key, value),
        None if google_itself && options.instance_credentials => {
            let login = environment
                .get("HOME")
                .map(|home| Path::new(home).join(".config/gcloud/application_default_credentials.json"))
                .filter(|path| path.exists());
            match login.as_deref().and_then(Path::to_str) {
                Some(path) => builder.with_application_credentials(path),
                None => builder,
            }
        }
        None => {
            return Err(no_credentials(
                "set GOOGLE_SERVICE_ACCOUNT to the path of a service account's key, or \
                 GOOGLE_APPLICATION_CREDENTIALS; this machine's role and login may not be used",
            ));
        }
    };
    match builder.build() {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(refused(&error, environment, &[])),
    }
}
