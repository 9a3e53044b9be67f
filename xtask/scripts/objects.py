#!/usr/bin/env python3
"""A client of object stores written from their documents: S3 with signature version 4, Azure with a shared key, Google
without a token. It shares no code with lsvd.

    objects.py make URL                    # the bucket or container; one that is there already is fine
    objects.py upload DIRECTORY URL        # all files of a directory, as objects below the URL's path
    objects.py download URL DIRECTORY      # all objects right below the URL's path, as files
    objects.py list URL                    # the names of all objects below the URL's path
    objects.py bytes URL                   # how many bytes all objects below the URL's path have

URLs are s3://BUCKET/PATH, az://CONTAINER/PATH and gs://BUCKET/PATH; endpoint and keys are in the variables that lsvd reads.
"""
import base64, datetime, hashlib, hmac, os, re, sys, urllib.error, urllib.request
from html import unescape
from urllib.parse import quote, urlencode, urlsplit

LIMIT_SECONDS, NOW = 60, datetime.datetime.now(datetime.timezone.utc)


def keyed(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def s3(method, url, query, body, headers):
    """Signature version 4, with the digest of the body."""
    host, region = url.netloc, os.environ.get("AWS_REGION", "us-east-1")
    time, day = NOW.strftime("%Y%m%dT%H%M%SZ"), NOW.strftime("%Y%m%d")
    headers |= {"host": host, "x-amz-date": time, "x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    names = ";".join(sorted(headers))
    canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    asked = "\n".join([method, url.path, query, canonical, names, headers["x-amz-content-sha256"]])
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
    key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in (day, region, "s3", "aws4_request"):
        key = keyed(key, part)
    who = f"Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 {who}, SignedHeaders={names}, Signature={keyed(key, to_sign).hex()}"


def azure(method, url, query, body, headers):
    """Shared key, of the version 2015-02-21 and later: the length of no body is left out."""
    account, key = os.environ["AZURE_STORAGE_ACCOUNT_NAME"], base64.b64decode(os.environ["AZURE_STORAGE_ACCOUNT_KEY"])
    headers |= {"x-ms-date": NOW.strftime("%a, %d %b %Y %H:%M:%S GMT"), "x-ms-version": "2021-08-06"}
    length = str(len(body)) if body else ""
    if body:
        headers |= {"x-ms-blob-type": "BlockBlob"}
    pairs = sorted(pair.split("=", 1) for pair in query.split("&") if pair)
    resource = f"/{account}{url.path}" + "".join(f"\n{name}:{urllib.request.unquote(value)}" for name, value in pairs)
    ours = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-ms-"))
    plain = [method, "", "", length, "", headers.get("content-type", ""), "", "", "", "", "", ""]
    signature = base64.b64encode(keyed(key, "\n".join(plain) + "\n" + ours + resource)).decode()
    headers["authorization"] = f"SharedKey {account}:{signature}"


def google(method, url, query, body, headers):
    headers["authorization"] = "Bearer "


PROTOCOLS = {
    "s3": ("AWS_ENDPOINT_URL", s3, {}, {"list-type": "2"}, "continuation-token", "Key", "Size", "NextContinuationToken"),
    "gs": ("GOOGLE_BASE_URL", google, {}, {"list-type": "2"}, "continuation-token", "Key", "Size",
           "NextContinuationToken"),
    "az": ("AZURE_STORAGE_ENDPOINT", azure, {"restype": "container"}, {"restype": "container", "comp": "list"}, "marker",
           "Name", "Content-Length", "NextMarker"),
}


class Place:
    def __init__(self, url):
        parts = urlsplit(url)
        endpoint, self.sign, self.of_bucket, self.listing, *tags = PROTOCOLS[parts.scheme]
        self.token, self.key, self.size, self.next = tags
        self.bucket, self.prefix = f"{os.environ[endpoint].rstrip('/')}/{parts.netloc}", parts.path.strip("/")

    def ask(self, method, name="", query=(), body=b""):
        path = f"{self.bucket}/{quote(name)}" if name else self.bucket
        query = urlencode(sorted(dict(query).items()), quote_via=quote, safe="-_.~")
        # What urllib says by itself, a form, some servers take apart.
        headers = {"content-type": "application/octet-stream"} if body else {}
        self.sign(method, urlsplit(path), query, body, headers)
        headers.pop("host", None)
        request = urllib.request.Request(f"{path}?{query}" if query else path, body or None, headers, method=method)
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
            return answer.read()

    def make(self):
        try:
            self.ask("PUT", query=self.of_bucket)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise

    def objects(self, more):
        """The names below the prefix, without it, and the sizes."""
        token, folder = None, f"{self.prefix}/"
        while True:
            query = self.listing | more | {"prefix": folder} | ({self.token: token} if token else {})
            page = self.ask("GET", query=query).decode()
            found = re.sub("<(CommonPrefixes|BlobPrefix)>.*?</\\1>", "", page, flags=re.DOTALL)
            pair = f"<{self.key}>(.*?)</{self.key}>.*?<{self.size}>([0-9]+)</{self.size}>"
            for name, size in re.findall(pair, found, flags=re.DOTALL):
                yield unescape(name).removeprefix(folder), int(size)
            token = re.search(f"<{self.next}>(.+?)</{self.next}>", page)
            if not token:
                return
            token = unescape(token[1])


def upload(directory, url):
    place = Place(url)
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name), "rb") as file:
            place.ask("PUT", f"{place.prefix}/{name}", body=file.read())


def download(url, directory):
    place = Place(url)
    for name, _ in place.objects({"delimiter": "/"}):
        with open(os.path.join(directory, name), "wb") as file:
            file.write(place.ask("GET", f"{place.prefix}/{name}"))


def listing(url):
    for name, _ in Place(url).objects({}):
        print(name)


def count(url):
    print(sum(size for _, size in Place(url).objects({})))


what, *arguments = sys.argv[1:]
try:
    {"make": lambda url: Place(url).make(), "upload": upload, "download": download, "list": listing,
     "bytes": count}[what](*arguments)
except urllib.error.HTTPError as error:
    sys.exit(f"error: {error.code}: {error.read().decode(errors='replace')[:500]}")
