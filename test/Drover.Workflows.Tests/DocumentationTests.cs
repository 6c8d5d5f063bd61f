using System.Text.RegularExpressions;

namespace Drover.Workflows.Tests;

/// <summary>The documents name files that exist, and show code that compiles.</summary>
public sealed partial class DocumentationTests
{
    private static readonly string[] AtTheRoot = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"];

    private static string Root { get; } = FindRoot();

    public static TheoryData<string> Documents() => [.. AtTheRoot.Concat(
        Directory.EnumerateFiles(Path.Combine(Root, "docs"), "*.md", SearchOption.AllDirectories).Select(f => Path.GetRelativePath(Root, f)).Order(StringComparer.Ordinal))];

    [Theory]
    [MemberData(nameof(Documents))]
    public void Every_file_that_a_document_names_exists(string document)
    {
        string text = WithoutFences(File.ReadAllText(Path.Combine(Root, document)));
        string folder = Path.GetDirectoryName(Path.Combine(Root, document))!;
        List<string> missing = [];
        foreach (Match match in Link().Matches(text))
        {
            string target = match.Groups[1].Value.Split('#')[0];
            if (target.Length > 0 && !target.Contains(':', StringComparison.Ordinal) && !Exists(Path.GetFullPath(Path.Combine(folder, target))))
                missing.Add(target);
        }
        foreach (Match match in FileName().Matches(text))
        {
            if (!Exists(Path.Combine(Root, match.Groups[1].Value)))
                missing.Add(match.Groups[1].Value);
        }
        Assert.True(missing.Count == 0, $"{document} names what is not there: {string.Join(", ", missing.Distinct())}");
    }

    [Theory]
    [MemberData(nameof(Documents))]
    public void Every_heading_that_a_link_names_exists(string document)
    {
        string text = WithoutFences(File.ReadAllText(Path.Combine(Root, document)));
        string folder = Path.GetDirectoryName(Path.Combine(Root, document))!;
        foreach (Match match in Link().Matches(text))
        {
            string[] parts = match.Groups[1].Value.Split('#');
            if (parts.Length != 2 || parts[0].Contains(':', StringComparison.Ordinal))
                continue;
            string file = parts[0].Length == 0 ? Path.Combine(Root, document) : Path.GetFullPath(Path.Combine(folder, parts[0]));
            IEnumerable<string> headings = Heading().Matches(WithoutFences(File.ReadAllText(file))).Select(h => Anchor(h.Groups[1].Value));
            Assert.Contains(parts[1], headings);
        }
    }

    [Fact]
    public void The_code_about_workflows_is_code_that_the_tests_run()
    {
        string code = Squeeze(File.ReadAllText(Path.Combine(Root, "test", "Drover.Workflows.Tests", "Snippets.cs")));
        MatchCollection blocks = CSharp().Matches(File.ReadAllText(Path.Combine(Root, "docs", "concepts", "workflows.md")));
        Assert.NotEmpty(blocks);
        foreach (Match block in blocks)
            Assert.True(code.Contains(Squeeze(block.Groups[1].Value), StringComparison.Ordinal), "not in Snippets.cs:\n" + block.Groups[1].Value);
    }

    private static bool Exists(string path) => File.Exists(path) || Directory.Exists(path);

    private static string Squeeze(string text) =>
        "\n" + string.Join('\n', text.ReplaceLineEndings("\n").Split('\n').Select(l => l.Trim()).Where(l => l.Length > 0)) + "\n";

    private static string WithoutFences(string text) => Fence().Replace(text, "");

    private static string Anchor(string heading) =>
        new([.. heading.Trim().ToLowerInvariant().Where(c => char.IsLetterOrDigit(c) || c is ' ' or '-' or '_').Select(c => c == ' ' ? '-' : c)]);

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Drover.slnx")))
            folder = Path.GetDirectoryName(folder);
        return folder ?? throw new InvalidOperationException("the tests run outside the repository");
    }

    [GeneratedRegex(@"\]\(([^)\s]+)\)")]
    private static partial Regex Link();

    // A name may be followed by what is meant in the file, as in `src/…/WorkflowExecutor.cs Place()`.
    [GeneratedRegex(@"`((?:src|test|docs|bench)/[^\s`*…<]*)[^`]*`")]
    private static partial Regex FileName();

    [GeneratedRegex(@"^```[^\n]*\n.*?^```\s*$", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Fence();

    [GeneratedRegex(@"^```csharp\n(.*?)^```\s*$", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex CSharp();

    [GeneratedRegex(@"^#+ (.+)$", RegexOptions.Multiline)]
    private static partial Regex Heading();
}
