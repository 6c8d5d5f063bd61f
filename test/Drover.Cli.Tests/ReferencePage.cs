using System.CommandLine;
using System.Globalization;
using System.Text;
using Drover.Orchestrator.Settings;

namespace Drover.Cli.Tests;

/// <summary>Writes <c>docs/reference/cli.md</c> from the command tree, the settings and the exit codes.</summary>
internal static class ReferencePage
{
    public static string Write(RootCommand root)
    {
        var page = new StringBuilder();
        page.Append("# Command line\n\n<!-- Generated from the program by HelpTests; do not edit. -->\n\n").Append(root.Description).Append("\n\n");
        page.Append("Data goes to stdout, prose and progress to stderr. An error is one line, `drover: …`, and an exit code from the table at the end.\n\n");
        page.Append("## Options of every command\n\n");
        Options(page, root.Options);
        foreach (Command command in root.Subcommands)
            Describe(page, command, "drover " + command.Name);
        Settings(page);
        page.Append("## Exit codes\n\n| Code | Meaning |\n|---|---|\n");
        foreach ((int code, string meaning) in ExitCodes.All)
            page.Append(CultureInfo.InvariantCulture, $"| {code} | {meaning} |\n");
        return page.ToString();
    }

    private static void Describe(StringBuilder page, Command command, string name)
    {
        page.Append("## `").Append(name);
        foreach (Argument argument in command.Arguments)
            page.Append(" <").Append(argument.Name).Append('>');
        page.Append("`\n\n").Append(command.Description).Append("\n\n");
        if (command.Arguments.Count > 0)
        {
            page.Append("| Argument | |\n|---|---|\n");
            foreach (Argument argument in command.Arguments)
                page.Append("| `").Append(argument.Name).Append("` | ").Append(Cell(argument.Description)).Append(" |\n");
            page.Append('\n');
        }
        Options(page, command.Options);
        foreach (Command child in command.Subcommands)
            Describe(page, child, $"{name} {child.Name}");
    }

    private static void Options(StringBuilder page, IEnumerable<Option> options)
    {
        List<Option> all = [.. options];
        if (all.Count == 0)
            return;
        page.Append("| Option | |\n|---|---|\n");
        foreach (Option option in all)
        {
            string names = string.Join(", ", option.Aliases.Prepend(option.Name).Select(n => $"`{n}`"));
            string value = option.HelpName is { } help ? $" *{Cell(help)}*" : "";
            page.Append("| ").Append(names).Append(value).Append(" | ").Append(Cell(option.Description)).Append(" |\n");
        }
        page.Append('\n');
    }

    private static void Settings(StringBuilder page)
    {
        page.Append("## Settings\n\nIn force is the flag, then the variable, then `.drover/config.json` (`drover config set`), then the default. Durations are written `5s`, `10m`, `1h30m`.\n\n");
        page.Append("| Key | Variable | Flag | Default | |\n|---|---|---|---|---|\n");
        foreach (Setting setting in SettingCatalog.All)
        {
            page.Append(CultureInfo.InvariantCulture,
                $"| {(setting.InFile ? $"`{setting.Key}`" : "")} | {Code(setting.Variable)} | {Code(setting.Flag)} | {Code(setting.Default)} | {Cell(setting.Doc)}{(setting.Words is { } words ? $" One of: {string.Join(", ", words)}." : "")} |\n");
        }
        page.Append('\n');
    }

    private static string Code(string? text) => text is null ? "" : $"`{text}`";

    private static string Cell(string? text) => (text ?? "").Replace("|", "\\|", StringComparison.Ordinal);
}
