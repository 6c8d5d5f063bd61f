using System.Text;
using Drover.Orchestrator.Settings;

namespace Drover.Orchestrator.Tests.Settings;

/// <summary>The reference page is made from the records that load and check the settings.</summary>
public sealed class ConfigurationPageTests
{
    /// <summary>DROVER_UPDATE_DOCS=1 writes the table into the document instead of comparing.</summary>
    [Fact]
    public void The_document_has_every_setting_of_the_catalog()
    {
        string file = Path.Combine(Backlog.StateTableTests.Repository(), "docs", "reference", "configuration.md");
        string text = File.ReadAllText(file).ReplaceLineEndings("\n");
        const string Begin = "<!-- table: begin -->\n", End = "<!-- table: end -->";
        int from = text.IndexOf(Begin, StringComparison.Ordinal) + Begin.Length, to = text.IndexOf(End, StringComparison.Ordinal);
        if (Environment.GetEnvironmentVariable("DROVER_UPDATE_DOCS") == "1")
            File.WriteAllText(file, text = text[..from] + Table() + text[to..]);
        Assert.Contains(Begin + Table() + End, text, StringComparison.Ordinal);
    }

    private static string Table()
    {
        var table = new StringBuilder("| setting | value | default | variable | flag | what it is |\n|---|---|---|---|---|---|\n");
        foreach (Setting setting in SettingCatalog.All)
        {
            table.Append($"| {(setting.InFile ? $"`{setting.Key}`" : "–")} | {Value(setting)} | {Code(setting.Default)} | {Code(setting.Variable)} | {Code(setting.Flag)} | {setting.Doc.Replace("|", "\\|", StringComparison.Ordinal)} |\n");
        }
        return table.ToString();
    }

    private static string Code(string? text) => text is null ? "–" : $"`{text}`";

    private static string Value(Setting setting)
    {
        string words = setting.Words is null ? "" : ": " + string.Join(", ", setting.Words.Select(w => $"`{w}`"));
        return setting.Kind switch
        {
            SettingKind.Number => $"whole number, {setting.Min} to {setting.Max}",
            SettingKind.Time => "duration",
            SettingKind.Word => "one word" + words,
            SettingKind.List => (setting.Paths ? "list of paths" : setting.Names ? "list of names" : "list") + words,
            _ => "text",
        };
    }
}
