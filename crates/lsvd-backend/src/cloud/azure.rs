//! Azure Blob Storage and servers that speak its protocol.
//!
//! Invariant: a custom endpoint never makes the machine's identity be asked for, nor sent.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use url::Url;

use super::http::Connector;
use super::{client_options, endpoint, no_credentials, no_retries, refused};
use crate::classify::Failure;
use crate::environment::Environment;
use crate::open::StoreOptions;
use crate::url::BucketUrl;

/// Variables that are passed on as they are, apart from those that are read here.
const PASSED_ON: [&str; 27] = [
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_TENANT_ID",
    "AZURE_STORAGE_AUTHORITY_ID",
    "AZURE_TENANT_ID",
    "AZURE_AUTHORITY_ID",
    "AZURE_STORAGE_AUTHORITY_HOST",
    "AZURE_AUTHORITY_HOST",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_USE_EMULATOR",
    "AZURE_STORAGE_ENCRYPTION_KEY",
    "AZURE_USE_AZURE_CLI",
    "AZURE_MSI_ENDPOINT",
    "AZURE_IDENTITY_ENDPOINT",
    "AZURE_OBJECT_ID",
    "AZURE_MSI_RESOURCE_ID",
    "AZURE_USE_FABRIC_ENDPOINT",
    "AZURE_SKIP_SIGNATURE",
];

pub(crate) fn open(url: &BucketUrl, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>, Failure> {
    let environment = &options.environment;
    let emulator = environment.is_on("AZURE_STORAGE_USE_EMULATOR");
    let allow_http = options.allow_http || emulator || environment.is_on("AZURE_ALLOW_HTTP");
    let endpoint =
        endpoint(options, environment.first(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]), allow_http)?;
    let unsigned = options.skip_signature || environment.is_on("AZURE_SKIP_SIGNATURE");
    let azure_itself = endpoint.as_ref().and_then(Url::host_str).is_none_or(is_azure);
    let may_ask_machine = options.instance_credentials && azure_itself;
    if !(unsigned || emulator || has_credentials(environment) || may_ask_machine) {
        return Err(no_credentials(
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or \
             AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET; this machine's identity may not be used",
        ));
    }

    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(client_options(allow_http))
        .with_http_connector(Connector::new(environment))
        .with_retry(no_retries())
        .with_container_name(url.bucket());
    for name in PASSED_ON {
        if let (Some(value), Ok(key)) =
            (environment.get(name), name.to_ascii_lowercase().parse::<AzureConfigKey>())
        {
            builder = builder.with_config(key, value);
        }
    }
    if unsigned {
        builder = builder.with_skip_signature(true);
        if !has_credentials(environment) {
            // Keeps the builder from arranging for the machine's identity, which would never be used.
            builder = builder.with_bearer_token_authorization("");
        }
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
    }
    match builder.build() {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(refused(&error, environment, &[])),
    }
}

fn is_azure(host: &str) -> bool {
    [".windows.net", ".fabric.microsoft.com", ".usgovcloudapi.net", ".chinacloudapi.cn"]
        .iter()
        .any(|domain| host.ends_with(domain))
}

/// Whether the environment has credentials of its own, whole ones.
fn has_credentials(environment: &Environment) -> bool {
    let any = |names: &[&str]| environment.first(names).is_some();
    let application = any(&["AZURE_STORAGE_CLIENT_ID", "AZURE_CLIENT_ID"])
        && any(&[
            "AZURE_STORAGE_TENANT_ID",
            "AZURE_STORAGE_AUTHORITY_ID",
            "AZURE_TENANT_ID",
            "AZURE_AUTHORITY_ID",
        ])
        && any(&["AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"]);
    application
        || environment.is_on("AZURE_USE_AZURE_CLI")
        || any(&[
            "AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_ACCESS_KEY",
            "AZURE_STORAGE_MASTER_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_STORAGE_SAS_KEY",
            "AZURE_STORAGE_TOKEN",
        ])
}
