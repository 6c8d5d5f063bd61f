using System.Buffers;
using System.Text;

namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// Replaces secrets in a byte stream by <c>[redacted]</c> before anything is stored (L-03): the exact values it is
/// given and what looks like a token of a common kind. It carries state from chunk to chunk, so where a stream is
/// cut makes no difference; bytes that may be the beginning of a secret are held back until that is decided.
/// </summary>
internal sealed class SecretRedactor
{
    /// <summary>Shorter values would blank ordinary words out of a log; they are not taken as secrets.</summary>
    internal const int ShortestSecret = 6;

    private const int LongestToken = 4096, LongestKeyBlock = 16 * 1024;
    private static readonly byte[] Mark = "[redacted]"u8.ToArray();
    private static readonly byte[] KeyBegin = "-----BEGIN "u8.ToArray(), KeyKind = "PRIVATE KEY-----"u8.ToArray(), KeyEnd = "-----END "u8.ToArray();

    private static readonly SearchValues<byte> TokenBytes =
        SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"u8);

    private static readonly SearchValues<byte> JwtBytes =
        SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."u8);

    // Prefix, and how many token bytes must follow for it to be a token and not a word.
    private static readonly TokenKind[] Kinds =
    [
        new("sk-"u8.ToArray(), 20, TokenBytes), // OpenAI, Anthropic and their imitators
        new("ghp_"u8.ToArray(), 30, TokenBytes), new("gho_"u8.ToArray(), 30, TokenBytes), new("ghu_"u8.ToArray(), 30, TokenBytes),
        new("ghs_"u8.ToArray(), 30, TokenBytes), new("ghr_"u8.ToArray(), 30, TokenBytes), new("github_pat_"u8.ToArray(), 30, TokenBytes),
        new("glpat-"u8.ToArray(), 18, TokenBytes), new("npm_"u8.ToArray(), 30, TokenBytes), new("AIza"u8.ToArray(), 30, TokenBytes),
        new("xoxb-"u8.ToArray(), 20, TokenBytes), new("xoxp-"u8.ToArray(), 20, TokenBytes), new("xapp-"u8.ToArray(), 20, TokenBytes),
        new("AKIA"u8.ToArray(), 16, TokenBytes), new("ASIA"u8.ToArray(), 16, TokenBytes), new("eyJ"u8.ToArray(), 60, JwtBytes),
    ];

    private sealed record TokenKind(byte[] Prefix, int Least, SearchValues<byte> Bytes);

    private readonly byte[][] secrets;
    private readonly bool[] starts = new bool[256];
    private byte[] held = [];
    private int keyBlockBytes = -1; // ≥ 0 while inside a private key

    /// <summary>Takes the known secrets; of each also the form it has inside a JSON string. Short ones are ignored.</summary>
    internal SecretRedactor(IEnumerable<string> knownSecrets)
    {
        secrets = [.. knownSecrets
            .SelectMany(value => new[] { value, EscapeForJson(value) })
            .Where(value => value.Length >= ShortestSecret)
            .Distinct(StringComparer.Ordinal)
            .Select(Encoding.UTF8.GetBytes)
            .OrderByDescending(value => value.Length)];
        foreach (var secret in secrets)
            starts[secret[0]] = true;
        foreach (var kind in Kinds)
            starts[kind.Prefix[0]] = true;
        starts[KeyBegin[0]] = true;
    }

    /// <summary>Redacts a whole text.</summary>
    internal static string Redact(string text, IEnumerable<string> knownSecrets)
    {
        var output = new ArrayBufferWriter<byte>();
        var redactor = new SecretRedactor(knownSecrets);
        redactor.Write(Encoding.UTF8.GetBytes(text), output);
        redactor.Finish(output);
        return Encoding.UTF8.GetString(output.WrittenSpan);
    }

    /// <summary>Takes the next bytes and writes what is decided.</summary>
    internal void Write(ReadOnlySpan<byte> chunk, IBufferWriter<byte> output) => Process(chunk, output, last: false);

    /// <summary>Writes what was held back; the stream has ended.</summary>
    internal void Finish(IBufferWriter<byte> output) => Process([], output, last: true);

    private void Process(ReadOnlySpan<byte> chunk, IBufferWriter<byte> output, bool last)
    {
        var buffer = held.Length == 0 ? chunk : (ReadOnlySpan<byte>)(byte[])[.. held, .. chunk];
        int at = 0, copied = 0;
        while (at < buffer.Length)
        {
            if (keyBlockBytes >= 0)
            {
                var skipped = SkipKeyBlock(buffer[at..], last);
                at += skipped;
                copied = at;
                if (keyBlockBytes >= 0)
                    break; // still inside; the rest, if any, is held
                continue;
            }
            if (!starts[buffer[at]])
            {
                at++;
                continue;
            }
            var length = Match(buffer[at..], last, out var undecided);
            if (undecided)
                break;
            if (length == 0)
            {
                at++;
                continue;
            }
            output.Write(buffer[copied..at]);
            output.Write(Mark);
            at += length;
            copied = at;
        }
        output.Write(buffer[copied..at]);
        held = buffer[at..].ToArray();
    }

    /// <summary>The length of the secret that begins here, or 0. Undecided when more bytes could make it one, or a longer one.</summary>
    private int Match(ReadOnlySpan<byte> text, bool last, out bool undecided)
    {
        undecided = false;
        foreach (var secret in secrets) // longest first
        {
            if (text.StartsWith(secret))
                return secret.Length;
            if (!last && text.Length < secret.Length && secret.AsSpan().StartsWith(text))
            {
                undecided = true;
                return 0;
            }
        }
        foreach (var kind in Kinds)
        {
            var prefix = kind.Prefix;
            if (!text.StartsWith(prefix))
            {
                if (!last && text.Length < prefix.Length && prefix.AsSpan().StartsWith(text))
                {
                    undecided = true;
                    return 0;
                }
                continue;
            }
            var run = text[prefix.Length..].IndexOfAnyExcept(kind.Bytes);
            if (run < 0)
            {
                if (!last && text.Length < LongestToken)
                {
                    undecided = true;
                    return 0;
                }
                run = text.Length - prefix.Length;
            }
            if (run >= kind.Least)
                return prefix.Length + run;
        }
        return MatchKeyBlock(text, last, out undecided);
    }

    private int MatchKeyBlock(ReadOnlySpan<byte> text, bool last, out bool undecided)
    {
        const int LongestKind = 40;
        undecided = false;
        if (!text.StartsWith(KeyBegin))
        {
            undecided = !last && text.Length < KeyBegin.Length && KeyBegin.AsSpan().StartsWith(text);
            return 0;
        }
        var window = text[..Math.Min(text.Length, KeyBegin.Length + LongestKind)];
        var kind = window.IndexOf(KeyKind);
        if (kind >= 0)
        {
            keyBlockBytes = 0;
            return kind + KeyKind.Length;
        }
        undecided = !last && text.Length < KeyBegin.Length + LongestKind && !text.Contains((byte)'\n');
        return 0;
    }

    private int SkipKeyBlock(ReadOnlySpan<byte> text, bool last)
    {
        var end = text.IndexOf(KeyEnd);
        if (end >= 0)
        {
            var close = text[(end + KeyEnd.Length)..].IndexOf("-----"u8);
            if (close >= 0)
            {
                keyBlockBytes = -1;
                return end + KeyEnd.Length + close + 5;
            }
        }
        // The end mark may be cut by the chunk: keep what could belong to it.
        var keep = last ? 0 : Math.Min(text.Length, KeyEnd.Length + 64);
        keyBlockBytes += text.Length - keep;
        if (keyBlockBytes > LongestKeyBlock)
            keyBlockBytes = -1; // no key is that long: somebody printed only the first line
        return text.Length - keep;
    }

    private static string EscapeForJson(string value) => value
        .Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal)
        .Replace("\r", "\\r", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal).Replace("\t", "\\t", StringComparison.Ordinal);
}
