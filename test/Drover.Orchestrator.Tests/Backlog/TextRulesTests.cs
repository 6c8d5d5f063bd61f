using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Backlog;

public sealed class TextRulesTests
{
    [Theory]
    [InlineData("Write the parser")]
    [InlineData("Task A — base change")]
    [InlineData("解析器を書く 🐑")]
    [InlineData("$(rm -rf /) `x` <b>")]
    public void C02_ordinary_text_is_kept_exactly(string text) => Assert.Same(text, TextRules.Title("the title", text));

    [Theory]
    [InlineData("", "is empty")]
    [InlineData(" \t", "is empty")]
    [InlineData("a\nb", "a line break at character 2")]
    [InlineData("a\tb", "U+0009")]
    [InlineData("a\u001b[31mb", "U+001B at character 2")]
    [InlineData("a\u009bb", "U+009B")]
    [InlineData("a\0b", "U+0000")]
    public void C02_controls_are_refused_with_their_place(string text, string expected)
    {
        var error = Assert.Throws<DroverException>(() => TextRules.Title("the title", text));
        Assert.Equal(ErrorCode.InvalidInput, error.Code);
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
        Assert.StartsWith("the title ", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void C02_lone_surrogates_and_lengths()
    {
        foreach (string text in new[] { "a\ud800", "\udc00a", "\ud800\ud800" })
            Assert.Contains("not valid Unicode", Assert.Throws<DroverException>(() => TextRules.Title("the title", text)).Message, StringComparison.Ordinal);
        TextRules.Title("the title", new string('x', 512));
        Assert.Throws<DroverException>(() => TextRules.Title("the title", new string('x', 513)));
        TextRules.Lines("the description", "a\n\tb" + new string('x', TextRules.MaxDescription - 4));
        Assert.Throws<DroverException>(() => TextRules.Lines("the description", new string('x', TextRules.MaxDescription + 1)));
        Assert.Throws<DroverException>(() => TextRules.Lines("the description", "a\rb"));
    }

    [Theory]
    [InlineData("task-17.2", true)]
    [InlineData("A_b.c-9", true)]
    [InlineData("", false)]
    [InlineData("-x", false)]
    [InlineData("..", false)]
    [InlineData("a/b", false)]
    [InlineData("a b", false)]
    [InlineData("ä", false)]
    public void C02_ids(string id, bool valid)
    {
        if (valid)
            Assert.Equal(id, TextRules.Id("the id", id));
        else
            Assert.Throws<DroverException>(() => TextRules.Id("the id", id));
    }

    [Fact]
    public void L01_foreign_text_in_messages_is_harmless()
    {
        Assert.Equal("a?[31m?b?", TextRules.Printable("a\u001b[31m\u202eb\n"));
        Assert.True(TextRules.Printable(new string('x', 500)).Length <= 81);
    }

    [Fact]
    public void Quality_warns_in_any_language_and_refuses_only_what_says_nothing()
    {
        Assert.True(Assert.Single(TaskQuality.Check("Fix issues", "")).Refused);
        Assert.DoesNotContain(TaskQuality.Check("Task A — base change", ""), r => r.Refused);
        Assert.Empty(TaskQuality.Check("Write the parser", "In src/Parser.cs; done when its tests pass"));
        Assert.Empty(TaskQuality.Check("解析器を書く", "src/Parser.cs に書く"));
        Assert.Contains(TaskQuality.Check("Parser", "x"), r => r.Problem.Contains("10 characters", StringComparison.Ordinal));
        Assert.Contains(TaskQuality.Check("Work on the parser", "Please handle errors"), r => r.Problem.Contains("handle errors", StringComparison.Ordinal));
    }
}
