using System.Buffers;
using System.Text;
using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Tests.CodingAgents;

public sealed class TextSafetyTests
{
    [Theory]
    [InlineData("plain\n\ttext ü漢🐑", "plain\n\ttext ü漢🐑")]
    [InlineData("\x1b[31mred\x1b[0m", "red")]
    [InlineData("a\x1b]0;title\ab\x1b]8;;http://x\x1b\\c", "abc")]
    [InlineData("a\x1bPq#0\x1b\\b\x1b_apc\x1b\\c\x1b^pm\x1b\\d\x1bXsos\x1b\\e", "abcde")]
    [InlineData("a\u009b31mb\u009d0;t\u009cc\u0090q\u009cd", "abcd")]
    [InlineData("cut\x1b[3", "cut")]
    [InlineData("cut\x1b]0;never ended", "cut")]
    [InlineData("a\x1b(Bb\x1b=c\x1b" + "7d", "abcd")]
    [InlineData("bell\a back\b null\0 del\x7f cr\r\n", "bell back null del cr\n")]
    [InlineData("a\u202eb\u2066c\u200fd\u061ce", "abcde")]
    [InlineData("\x1b[\x1b[31mx", "x")]
    [InlineData("\x1b]0;a\x1b[31mb", "b")]
    [InlineData("\x1b\ntext", "\ntext")]
    public void L01_control_sequences_vanish_wherever_the_text_is_cut(string raw, string clean)
    {
        Assert.Equal(clean, TerminalText.Sanitize(raw));
        for (var at = 0; at <= raw.Length; at++)
        {
            var stream = new TerminalText();
            Assert.Equal(clean, stream.Next(raw[..at]) + stream.Next(raw[at..]));
        }
    }

    [Fact]
    public void L01_an_endless_sequence_does_not_swallow_what_follows() =>
        Assert.EndsWith("the end", TerminalText.Sanitize("\x1b]" + new string('x', 10_000) + "the end"), StringComparison.Ordinal);

    [Fact]
    public void L01_one_line_is_one_line_of_bounded_length()
    {
        Assert.Equal("a b c", TerminalText.SanitizeLine(" a\nb\tc\r\n"));
        Assert.Equal("🐑…", TerminalText.SanitizeLine("🐑🐑🐑", 3));
    }

    [Fact]
    public void L03_fifty_secrets_split_at_every_offset_are_redacted()
    {
        var random = new Random(7);
        var secrets = Enumerable.Range(0, 50).Select(number => number % 10 == 0
            ? $"päss \"{number}\"\nline {random.Next()}"
            : new string([.. Enumerable.Range(0, 6 + number).Select(_ => (char)('!' + random.Next(90)))])).ToArray();
        foreach (var secret in secrets)
        {
            var bytes = Encoding.UTF8.GetBytes($"before {secret} between {secret}");
            for (var at = 0; at <= bytes.Length; at++)
                Assert.Equal("before [redacted] between [redacted]", Redact(secrets, bytes[..at], bytes[at..]));
            Assert.Equal("before [redacted] between [redacted]", Redact(secrets, [.. bytes.Select(one => new[] { one })]));
        }
    }

    [Fact]
    public void L03_tokens_of_common_kinds_are_redacted_wherever_they_are_cut()
    {
        string Run(int length) => new('a', length);
        string[] tokens =
        [
            "sk" + "-proj-" + Run(30), "gh" + "p_" + Run(36), "github" + "_pat_" + Run(50), "gl" + "pat-" + Run(20), "AK" + "IA" + Run(16),
            "xo" + "xb-" + Run(40), "AI" + "za" + Run(35), "np" + "m_" + Run(36), "ey" + "J" + Run(30) + ".eyJ" + Run(30) + "." + Run(43),
            "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nabc/def+\nxyz==\n-----END OPENSSH " + "PRIVATE KEY-----",
        ];
        foreach (var token in tokens)
        {
            var bytes = Encoding.UTF8.GetBytes($"x={token}\nrest");
            for (var at = 0; at <= bytes.Length; at++)
                Assert.Equal("x=[redacted]\nrest", Redact([], bytes[..at], bytes[at..]));
        }
    }

    [Theory]
    [InlineData("task-1 sk-ip ghp_short risk-averse npm_config_cache AKIA -----BEGIN CERTIFICATE-----\nabc")]
    [InlineData("-----BEGIN ")]
    [InlineData("the sk-")]
    public void L03_ordinary_text_passes(string text)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        Assert.Equal(text, Redact(["a-secret-value"], [.. bytes.Select(one => new[] { one })]));
    }

    [Fact]
    public void L03_a_secret_inside_a_JSON_string_is_redacted() =>
        Assert.Equal("{\"t\":\"[redacted]\"}", SecretRedactor.Redact("{\"t\":\"pass\\\"word\\n2\"}", ["pass\"word\n2"]));

    [Fact]
    public void L03_a_lone_key_header_does_not_blank_the_rest_of_a_log()
    {
        var text = "-----BEGIN " + "PRIVATE KEY-----\n" + new string('z', 100_000) + "\nthe end";
        Assert.EndsWith("the end", SecretRedactor.Redact(text, []), StringComparison.Ordinal);
    }

    private static string Redact(IEnumerable<string> secrets, params byte[][] chunks)
    {
        var redactor = new SecretRedactor(secrets);
        var output = new ArrayBufferWriter<byte>();
        foreach (var chunk in chunks)
            redactor.Write(chunk, output);
        redactor.Finish(output);
        return Encoding.UTF8.GetString(output.WrittenSpan);
    }
}
