"""The vocabulary of folding: words that say whether the value next to them identifies a fault.

All words are lower case, unless a pattern says otherwise. Adding one changes fingerprints of the
reasons that contain it, once: note it in the changelog.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A value after one of these names a part of a program, and stays: `column "email"`.
NAME_WORDS = _words(
    """
    argument attribute class collection column columns command constraint constant enum extension
    field fields function header identifier index import key keyword loc method mode model module
    named operation operator option package parameter path prop property processor queue reading
    relation role schema scope service setting table topic trigger type variable view vhost
    """
)
# Likewise before a value: `'str' object`, `"total" is null`.
NAME_FOLLOWS = re.compile(
    r"\s+(?:object\b|codec\b|option\b|violates\b|column\b|constraint\b|field\b|property\b|method\b"
    r"|is (?:null|undefined|not (?:a function|defined|iterable|a constructor|callable))\b)"
)
# A short code after one of these is the fault itself: `code: 23505`, `exit code 137`.
CODE_WORDS = _words(
    """
    alert code errcode errno error errorcode error_code exception exit hresult oserror sqlstate
    signal status violation winerror
    """
)
# A number from 100 to 599 after one of these is an HTTP status.
STATUS_WORDS = _words(
    """
    answered code error got http httpstatus last received responded response returned status
    statuscode status_code
    """
)
# A number from 400 to 599 in brackets after one of these is an HTTP status too: `failed (404)`.
FAILURE_WORDS = _words(
    """
    conflict denied failed failure forbidden found gateway refused rejected request timeout
    unauthorized unavailable
    """
)
# What is quoted after one of these is a sentence, which is folded word by word.
SENTENCE_WORDS = _words(
    """
    cause desc description detail details error error_description errormessage error_message message
    msg reason title
    """
)
# The word after one of these is the id of a thing if it holds a digit, whatever else it holds.
ID_WORDS = _words(
    """
    account contract customer document id invoice item job message order payment record request
    sequence session subscription task tenant token transaction uid user uuid
    """
)
# Ports that say which service it is.
SERVICE_PORTS = _words(
    """
    20 21 22 23 25 53 80 88 110 111 123 135 139 143 161 389 443 445 465 514 515 548 554 587 631 636
    853 873 989 990 993 995 1433 1521 2049 3306 3389 4222 5432 5671 5672 6379 6380 7700 8983 9042
    9092 9200 9300 11211 15672 26379 27017
    """
)
# Words with a digit, or with rare letters, that are no id.
TECHNICAL_WORDS = _words(
    """
    aes128 aes256 amd64 arm64 base32 base64 bz2 bzpopmax bzpopmin cp1252 db2 ec2 ed25519 es2015 es6
    float32 float64 h264 h265 http1 http2 http3 i18n id3 imap4 imap4rev1 int16 int32 int64 int8 ipv4
    ipv6 iso-8859-1 iso-8859-15 k8s latin1 log4j md4 md5 mp3 mp4 neo4j oauth1 oauth2 p12 pbkdf2
    pkcs1 pkcs12 pkcs7 pkcs8 pop3 psycopg2 rc4 rfc2047 rfc2822 rfc5322 rfc822 s3 sha-1 sha-256
    sha-512 sha1 sha256 sha384 sha512 socks4 socks5 ssl2 ssl3 sslv2 sslv3 tls1 tlsv1 tlsv1.0 tlsv1.1
    tlsv1.2 tlsv1.3 uint16 uint32 uint64 uint8 urllib3 utf-16 utf-8 utf16 utf32 utf8 utf8mb4 v8 web3
    win32 x509 x64 x86 x86_64
    """
)
# Codes of errors that are known by their form alone.
ERROR_CODE = re.compile(
    r"E\d{4,5}|P[12]\d{3}|PGRST\d{1,3}|AADSTS\d{4,8}|(?:ORA|TNS|PLS|DPI|DPY)-\d{4,5}"
    r"|SQL\d{4}N|HY\d{3}|TS\d{4}|CS\d{4}|HTTP_?[1-5]\d\d|0x[89CE][0-9A-Fa-f]{7}"
    r"|(?:ERR|ER|SSL|SQLITE|EVP|OSSL|WSA)_\w+|[A-Z]\w*(?:Error|Exception|Fault|Failure)"
)
# What may stand after code words: `23505`, `0A00010B`, `E-12`, `ER_DUP_ENTRY`.
SHORT_CODE = re.compile(r"-?\d{1,6}|[A-Z0-9]{2,8}|[A-Z]{1,5}-\d{1,6}|[A-Z][A-Z0-9_]{1,40}")
STATUS_FOLLOWS = re.compile(
    r"[\s:)\]-]*(?:Bad|Unauthorized|Payment Required|Forbidden|Not (?:Found|Allowed|Acceptable)"
    r"|Method Not|Proxy Auth|Request |Conflict|Gone|Length Req|Payload|Unsupported Media"
    r"|Unprocessable|Locked|Too (?:Many|Early)|Internal Server|Service Unavail|Gateway)"
)
# Endings of names of files that hold data. Files of programs (.js, .py) are names.
FILE_ENDINGS = _words(
    """
    7z avi bak bin bmp bz2 cer crt csv dat db doc docx eml epub gif gz heic htm html ics jpeg jpg
    key log m4a mbox mkv mov mp3 mp4 mpeg mpg msg odp ods odt ogg p12 p7m pdf pem pfx png ppt pptx
    pst rar rtf sqlite sql svg tar tgz tif tiff tmp tsv txt vcf wav webm webp wmv xls xlsx xml zip
    """
)
# The last label of host names. Not those that are properties in programs: `user.id`, `x.is`.
TOP_LEVEL_DOMAINS = _words(
    """
    ai app arpa at au be biz br ca cc ch cl cloud cn co com corp cz de dev dk edu es eu example fi
    fr gov gr hk home hu ie il internal intranet io it jp kr lan local localdomain localhost lt lu
    lv mil mx net nl no nz online org ph pl pro pt ro ru se sg shop si site sk store svc tech
    tr tv tw ua uk us vn xyz za
    """
)
CURRENCIES = "$€£¥₽₹₺₩₪₴₦₱₫"
# Units, and what else belongs to a number, in the same or the next word.
UNITS = (
    "ns|us|µs|ms|msec|msecs|millis|milliseconds?|seconds?|secs?|s|minutes?|mins?|min|m|hours?|hrs?"
    "|h|days?|d|weeks?|months?|years?|с|сек|мин|ч|bytes?|bits?|[kKMGTP]i?[Bb]?|B|[kMGT]o|px|元|円"  # noqa: RUF001
    "|AM|PM|am|pm|UTC|GMT|CET|CEST|EST|PST"
    "|EUR|USD|GBP|CHF|JPY|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|TRY|RUB"
    "|eur|usd|gbp|chf|jpy|cny|inr|aud|cad|sek|nok|dkk|pln"
)
# What is counted: `1 attempt`, `3 attempts`.
COUNTED = (
    "argument|attempt|attachment|character|chunk|column|connection|document|element|email|error|failure"
    "|file|item|job|line|mail|message|page|parameter|part|record|request|row|run|time|token|user|value"
    "|warning|worker"
)
# What precedes a number that belongs to a date, or to an amount.
DATE_WORDS = _words(
    """
    Mon Tue Wed Thu Fri Sat Sun Monday Tuesday Wednesday Thursday Friday Saturday Sunday
    Jan Feb Mar Apr May Jun Jul Aug Sep Sept Oct Nov Dec January February March April June July
    August September October November December EUR USD GBP CHF JPY CNY INR AUD CAD
    """
)

# After each letter, those that seldom follow it in words: the 351 rarest of 676 pairs, each less
# than 0.04 % of the pairs in 24,905 different words of Python's, Perl's and this project's files.
_SELDOM_FOLLOWS = """
    a:aehjoqz b:dfghkmnpqtvwxz c:bfgjnqvwxz d:ghjknqvwxyz e:jkz f:bcdghjkmnpqvwxyz
    g:bcdfjkpqvwxyz h:bcdfghjklmnpqsvwxyz i:hijkquwy j:abcdfghijklmnpqrstuvwxyz
    k:bcdfghjkmnopqrtuvwxyz l:bghjknqrvwxz m:cfghjknqrvwxz n:bhjqwxyz o:ehjqyz p:bgjkmnqvwxz
    q:abcdefghijklmnopqrstvwxyz r:hjqwxz s:bjvxz t:gjkqvxz u:hjkquvwxyz v:bcdfghjklmnpqrstuvwxyz
    w:bcdfgjklmpqtuvwxyz x:abdghjklmnoqruvwxyz y:abcdfghjkloqruvwxyz z:abcdfghjklmnopqrstuvwxyz
"""
RARE_PAIRS = frozenset(
    entry[0] + second for entry in _SELDOM_FOLLOWS.split() for second in entry[2:]
)
