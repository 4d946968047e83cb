//! The archive in Azure's Blob Storage: Azurite, Microsoft's own emulator, which checks signatures.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object_store::azure::{AzureAuthorizer, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::HttpRequest;

use super::cloud::{BUCKET, Cloud, is_whole_or_named, refused};
use super::place::Place;
use crate::common::Process;
use crate::python::run;

const AZURITE: &str = "azurite@3.37.0";
const ACCOUNT: &str = "tapeline";
/// Keys are 64 bytes in base64.
const KEY: &str =
    "dGFwZWxpbmUncyBrZXkgZm9yIGEgdGVzdCwga25vd24gdG8gYWxsIHdobyByZWFkIGl0LCBzbyBubyBzZWNyZQ==";
const OTHER: &str =
    "YW5vdGhlcidzIGtleSwgd2hpY2ggdGhpcyBhY2NvdW50IGRvZXMgbm90IGhhdmU6IGl0IGlzIHJlZnVzZWQgIQ==";

/// The server, which keeps everything in memory.
struct Azurite {
    _process: Process,
    endpoint: String,
}

/// Installs the pinned version once.
fn installed() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(AZURITE);
    let program = folder.join("node_modules/.bin/azurite-blob");
    if !program.exists() {
        std::fs::create_dir_all(&folder).expect("a folder");
        let install = ["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"];
        run(
            Command::new("npm").args(install).arg("--prefix").arg(&folder).arg(AZURITE),
            "npm install (needs npm: apt-get install npm, and its registry or a mirror)",
        );
    }
    program
}

impl Azurite {
    fn start() -> Azurite {
        let mut child = Command::new(installed())
            .args(["--blobPort", "0", "--inMemoryPersistence", "--silent", "--disableTelemetry"])
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("azurite");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let url = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).expect("a line") > 0, "azurite ended");
            if let Some((_, url)) = line.trim().split_once("listens on ") {
                break url.to_owned();
            }
        };
        // what it says from now on is nobody's
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Azurite { _process: Process(child), endpoint: format!("{url}/{ACCOUNT}") }
    }

    /// Makes the container, which `object_store` cannot.
    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-container>
    async fn container(&self) -> MicrosoftAzure {
        let container = MicrosoftAzureBuilder::new()
            .with_container_name(BUCKET)
            .with_endpoint(self.endpoint.clone())
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_allow_http(true)
            .build()
            .expect("a container");
        let credential = container.credentials().get_credential().await.expect("the key");
        let url = format!("{}/{BUCKET}?restype=container", self.endpoint);
        let mut request = HttpRequest::new(String::new().into());
        *request.method_mut() = reqwest::Method::PUT;
        *request.uri_mut() = url.parse().expect("a URL");
        request.headers_mut().insert("content-length", 0.into());
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).expect("signed");
        let made = reqwest::Client::new().put(url).headers(request.headers().clone()).send().await;
        assert_eq!(made.expect("azurite answers").status(), reqwest::StatusCode::CREATED);
        container
    }

    async fn cloud(&self) -> Cloud {
        Cloud {
            scheme: "az",
            settings: vec![
                ("AZURE_ENDPOINT", self.endpoint.clone()),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ],
            proof: "AZURE_STORAGE_ACCOUNT_KEY",
            right: KEY.to_owned(),
            wrong: OTHER.to_owned(),
            missing: "ContainerNotFound",
            denied: "AuthorizationFailure",
            bucket: Box::new(self.container().await),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Azurite from npm: `make test-all`"]
async fn an_archive_in_azure_is_whole_or_named_as_broken_and_nothing_is_lost_s3() {
    let place = Place::new("azure").await;
    let azurite = Azurite::start();
    let cloud = azurite.cloud().await;
    is_whole_or_named(&place, &cloud).await;
    refused(&cloud.run(&place, &["archive", "lifecycle", "apply"]), "the store's own tools");
    place.finish().await;
}
