using System.Text.RegularExpressions;
using System.Xml.Linq;

namespace Drover.Workflows.Tests;

/// <summary>Rules about the repository itself, read from its files.</summary>
public sealed partial class RepositoryTests
{
    // DESIGN 2: who may know whom. A project that is not here has no rule yet, which is a failure too.
    private static readonly Dictionary<string, string[]> Allowed = new()
    {
        ["Drover.Workflows"] = [],
        ["Drover.Workflows.Generators"] = [],
        ["Drover.Workflows.Sqlite"] = ["Drover.Workflows"],
        ["Drover.Workflows.Postgres"] = ["Drover.Workflows"],
        ["Drover.Agents"] = ["Drover.Workflows"],
        ["Drover.Orchestrator"] = ["Drover.Workflows"],
        ["Drover.Dashboard"] = ["Drover.Workflows", "Drover.Agents", "Drover.Orchestrator"],
        ["Drover.Cli"] = ["Drover.Workflows", "Drover.Agents", "Drover.Orchestrator", "Drover.Dashboard", "Drover.Workflows.Postgres", "Drover.Workflows.Sqlite"],
    };

    private static string Root { get; } = FindRoot();

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "Drover.slnx")))
            folder = Path.GetDirectoryName(folder);
        return folder ?? throw new InvalidOperationException("the tests run outside the repository");
    }

    private static IEnumerable<string> Sources(string pattern) => Directory.EnumerateFiles(Path.Combine(Root, "src"), pattern, SearchOption.AllDirectories)
        .Where(f => !f.Contains("/obj/", StringComparison.Ordinal) && !f.Contains("/bin/", StringComparison.Ordinal));

    [Fact]
    public void Dependencies_point_one_way()
    {
        foreach (string project in Sources("*.csproj"))
        {
            string name = Path.GetFileNameWithoutExtension(project);
            Assert.True(Allowed.TryGetValue(name, out string[]? allowed), $"{name} has no rule here: say whom it may know");
            foreach (XElement reference in XDocument.Load(project).Descendants("ProjectReference"))
            {
                string to = Path.GetFileNameWithoutExtension(reference.Attribute("Include")!.Value.Replace('\\', '/'));
                Assert.True(allowed.Contains(to), $"{name} may not refer to {to}");
            }
        }
    }

    [Fact]
    public void Only_the_driver_projects_name_a_driver()
    {
        foreach (string project in Sources("*.csproj"))
        {
            string name = Path.GetFileNameWithoutExtension(project);
            string[] drivers = [.. XDocument.Load(project).Descendants("PackageReference").Select(p => p.Attribute("Include")!.Value)
                .Where(p => p.Contains("Sqlite", StringComparison.OrdinalIgnoreCase) || p.Contains("Npgsql", StringComparison.OrdinalIgnoreCase))];
            Assert.True(drivers.Length == 0 || name is "Drover.Workflows.Sqlite" or "Drover.Workflows.Postgres", $"{name} names {string.Join(", ", drivers)}");
        }
    }

    [Fact]
    public void K01_every_package_version_is_exact()
    {
        foreach (XElement package in XDocument.Load(Path.Combine(Root, "Directory.Packages.props")).Descendants("PackageVersion"))
            Assert.Matches(Exact(), package.Attribute("Version")!.Value);
        foreach (string project in Directory.EnumerateFiles(Root, "*.csproj", SearchOption.AllDirectories))
            Assert.DoesNotContain(XDocument.Load(project).Descendants("PackageReference"), p => p.Attribute("Version") is not null || p.Attribute("VersionOverride") is not null);
    }

    [GeneratedRegex(@"^\[\d+(\.\d+){1,3}(-[0-9A-Za-z.]+)?\]$")]
    private static partial Regex Exact();

    [Fact]
    public void No_source_file_is_longer_than_500_lines()
    {
        string[] long_ = [.. Sources("*.cs").Where(f => File.ReadLines(f).Count() > 500).Select(f => Path.GetRelativePath(Root, f))];
        Assert.True(long_.Length == 0, $"split: {string.Join(", ", long_)}");
    }
}
