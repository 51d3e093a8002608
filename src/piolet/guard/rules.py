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
