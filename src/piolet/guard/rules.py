"""Every rule there is, with the level that it has where no policy says otherwise."""

from __future__ import annotations

from piolet.guard.finding import Level, Rule

_ROTATE = "take it out, keep it in a file that only you can read, and revoke it: whoever saw the file has it"

SECRET = Rule("secret/value", Level.FAIL, "a secret stands in the text", _ROTATE)
LOADER = Rule(
    "environment/loader",
    Level.FAIL,
    "a variable makes the loader run code in every process, in privileged hooks too (as in CVE-2025-23266)",
    "set it for the one program that needs it, on its own command line",
)

TRACE = Rule(
    "habit/trace",
    Level.WARN,
    "the shell prints every command with its values, so secrets end in the log",
    "take `set -x` out, or put `set +x` before a secret is used",
)
PRINTS_ITSELF = Rule(
    "habit/prints-itself",
    Level.WARN,
    "the script prints itself, with all that stands in it",
    "keep the script in version control instead; Piolet keeps what was run",
)
PRINTS_ENVIRONMENT = Rule(
    "habit/prints-environment",
    Level.WARN,
    "the whole environment is printed, with every token in it",
    "print the variables that you need by name",
)
PRINTS_SECRET = Rule(
    "habit/prints-secret",
    Level.FAIL,
    "a variable that holds a secret is printed",
    "print whether it is set: ${NAME:+set}",
)
EXPORTED = Rule(
    "habit/exported-secret",
    Level.WARN,
    "a secret is exported to every process of the job",
    "give it to the one command that needs it: NAME=$(cat FILE) command",
)
ARGUMENT = Rule(
    "habit/secret-argument",
    Level.WARN,
    "a secret is an argument of a command, which every user of the node can read in /proc and accounting keeps",
    "give it in a file or on standard input",
)
OPEN_TO_ALL = Rule(
    "habit/open-to-all",
    Level.WARN,
    "files are made writable for every user",
    "give rights to your group: chmod -R g+rwX",
)
UNVERIFIED = Rule(
    "habit/unverified-download",
    Level.WARN,
    "something is downloaded without verifying where it comes from, or run unseen",
    "verify TLS, and check a digest before running what was downloaded",
)
OPEN_SERVER = Rule(
    "habit/open-server",
    Level.FAIL,
    "a notebook server is started without a token: whoever reaches the node runs code as you",
    "leave the token in place, and listen on 127.0.0.1",
)
READABLE = Rule(
    "habit/readable-secret", Level.WARN, "a file with a secret can be read by every user", "chmod 600 the file"
)

CODE = Rule(
    "model/code",
    Level.FAIL,
    "loading the file calls something that runs code or reaches outside of it",
    "do not load it; ask its author for safetensors",
)
UNLISTED = Rule(
    "model/unlisted-import",
    Level.FAIL,
    "loading the file imports something that is not known to be harmless",
    "look at what is imported; if it is yours, list it under [model] imports of the policy",
)
BROKEN = Rule(
    "model/broken",
    Level.FAIL,
    "the file is torn, contradicts itself or is not what it says it is",
    "fetch it again and compare its digest; what a scanner cannot read may still run",
)
BOMB = Rule(
    "model/limits",
    Level.FAIL,
    "the file goes beyond the limits of size, ratio or depth that a model needs",
    "do not load it; if it is sound, raise the limit under [model] of the policy",
)
REMOTE_CODE = Rule(
    "model/remote-code",
    Level.WARN,
    "the model brings Python code that runs with trust_remote_code",
    "read that code and pin its revision, or use a class of the library",
)
FOREIGN_CODE = Rule(
    "model/foreign-code",
    Level.FAIL,
    "the model's code comes from another repository, which its owner can change at any time",
    "take the code into the model's own directory and read it",
)
TEMPLATE = Rule(
    "model/template",
    Level.FAIL,
    "a chat template reaches into Python's internals (as in CVE-2024-34359)",
    "replace the template; a renderer that is not sandboxed runs it",
)
OUTSIDE = Rule("model/outside-path", Level.FAIL, "the file names data outside of its own directory", "do not load it")
DIGEST = Rule(
    "model/digest", Level.FAIL, "a file is not the one that the manifest names", "fetch it again from its source"
)
SIGNATURE = Rule(
    "model/signature",
    Level.FAIL,
    "the files are not those that were signed, or another signed them",
    "fetch model and signature again from their source; do not load them as they are",
)
CREDENTIAL_FILE = Rule(
    "image/credential-file",
    Level.FAIL,
    "a file has the name of one that holds credentials; whoever has the image has it, also if a later layer deletes it",
    "build the image again without it (a build secret is never in a layer), and revoke what it holds",
)
SETUID = Rule(
    "image/setuid",
    Level.WARN,
    "a program takes the rights of its owner or has file capabilities",
    "chmod a-s it if nobody needs it; in a user namespace or under no_new_privs it gives nothing",
)
LIBRARY_PATH = Rule(
    "image/library-path",
    Level.WARN,
    "a variable changes where every program takes its libraries from",
    "put the directories in /etc/ld.so.conf.d and run ldconfig",
)
SEARCH_PATH = Rule(
    "image/search-path",
    Level.FAIL,
    "programs or libraries are searched in a directory that others may write to, or in any",
    "take the directory out of the variable, or its right to be written to by all",
)
IMAGE_BROKEN = Rule(
    "image/broken",
    Level.FAIL,
    "the image is torn or is not what its manifest says",
    "pull or save it again; what a scanner cannot read may still run",
)
IMAGE_LIMITS = Rule(
    "image/limits",
    Level.FAIL,
    "the image goes beyond the limits of size, ratio or number of files",
    "do not use it; if it is sound, raise the limit under [image] of the policy",
)
FIXED = Rule(
    "vulnerability/fixed",
    Level.FAIL,
    "a package has a known vulnerability, and a later version has not",
    "build the image again with the version that is fixed",
)
UNFIXED = Rule(
    "vulnerability/unfixed",
    Level.WARN,
    "a package has a known vulnerability, and no version without it is known",
    "do without the package, or see in the advisory what it takes to be hit",
)
VULNERABILITIES = Rule(
    "unchecked/vulnerabilities",
    Level.UNKNOWN,
    "nothing can be said of the vulnerabilities of these packages",
    "mirror the OSV advisories of the ecosystem into a directory, and give it with --osv or guard.osv",
)
PACKAGES = Rule(
    "unchecked/packages",
    Level.UNKNOWN,
    "a database of packages is not read, so neither they nor their vulnerabilities are known",
    "scan it with the tool of its distribution, or set the level of unchecked/* in the policy",
)
OPEN_ENDPOINT = Rule(
    "job/open-endpoint",
    Level.FAIL,
    "a service of the job gives code, models or data to whoever reaches the node",
    "start it with a token or key; 127.0.0.1 keeps other nodes out, and not other users of this one",
)
HALF_OPEN = Rule(
    "job/half-guarded",
    Level.WARN,
    "an API key guards only a part of the service: what lies outside of /v1 is open",
    "put a proxy in front that lets only /v1 through",
)
UNDECLARED = Rule(
    "job/undeclared-listener",
    Level.WARN,
    "a process of the job accepts connections from other nodes, which nobody declared",
    "declare the port with --declare, or let the program listen on 127.0.0.1",
)
OLD_TORCH = Rule(
    "job/old-torch",
    Level.FAIL,
    "a torch before 2.6.0 runs code of a checkpoint although weights_only=True (CVE-2025-32434)",
    "update torch, and load safetensors",
)
GPU_MEMORY = Rule(
    "job/gpu-memory",
    Level.WARN,
    "memory of a GPU was left by others, who may read what is written there, or be read",
    "tell the operators; the memory of GPUs is not cleared between jobs",
)
APART = Rule(
    "unchecked/network",
    Level.UNKNOWN,
    "a process listens in a network namespace of its own, where it cannot be asked",
    "run this within that namespace, or set the level of unchecked/* in the policy",
)
SIGNATURE_UNKNOWN = Rule(
    "unchecked/signature",
    Level.UNKNOWN,
    "the signature could not be verified",
    "let this host reach Sigstore, or give the site's own with --trust",
)
UNREADABLE = Rule(
    "unchecked/unreadable", Level.UNKNOWN, "a file cannot be read by you", "scan as its owner, or scan the archive"
)
UNCHECKED = Rule(
    "unchecked/format",
    Level.UNKNOWN,
    "no check is known for this format, so nothing is said of it",
    "leave it out, convert it, or set the level of unchecked/* in the policy",
)
TOO_LARGE = Rule(
    "unchecked/size", Level.UNKNOWN, "the text is too large to be read whole", "split it, or scan it by hand"
)

EXPIRED = Rule(
    "policy/expired",
    Level.WARN,
    "an allowance of the policy has expired and no longer counts",
    "renew it or take it out",
)

RULES = {rule.id: rule for rule in vars().copy().values() if isinstance(rule, Rule)}
"""Every rule, by its id."""
