using Drover.Orchestrator.Backlog;

namespace Drover.Cli.Commands;

/// <summary>What the demo builds: a small website, as a graph with parallel parts, a diamond, and a task whose first attempt fails.</summary>
internal static class DemoContent
{
    public const string Branch = "main";
    public const string Epic = "Tea shop website";
    public const string TestCommand = "sh check.sh";

    /// <summary>The gate: it holds on the first commit, and only if blockers really landed before what they block.</summary>
    public const string Check = """
        #!/bin/sh
        # Every page begins with a doctype, and every page that is linked exists.
        set -eu
        for page in site/*.html; do
            [ -e "$page" ] || continue
            head -n 1 "$page" | grep -q '^<!doctype html>' || { echo "$page has no doctype"; exit 1; }
        done
        if [ -f site/nav.txt ]; then
            while read -r page; do
                [ -f "site/$page" ] || { echo "nav.txt links to site/$page, which is missing"; exit 1; }
            done < site/nav.txt
        fi
        echo "site is consistent"

        """;

    private sealed record Part(string Name, string Title, int Priority, string[] After, params string[] Script);

    private static readonly Part[] Parts =
    [
        new("teas", "Collect the list of teas", 0, [], "wait 700ms", "edit data/teas.txt \"Assam\\nEarl Grey\\nSencha\""),
        new("layout", "Write the page layout", 5, [], "wait 500ms", Page("layout", "Tea shop")),
        new("style", "Choose the colours", 0, [], "wait 900ms", "edit site/style.css \"body { color: #234; background: #fed }\""),
        new("home", "Build the home page", 0, ["layout", "style"], "wait 800ms", Page("home", "Welcome")),
        new("menu", "Build the menu page", 0, ["teas", "layout"], "wait 600ms", Page("menu", "Our teas")),
        new("about", "Build the about page", 0, ["layout"], "wait 1s", Page("about", "About us")),
        new("order", "Build the order form (its first attempt fails)", 0, ["menu"], "wait 300ms", "fail 1 times", Page("order", "Order tea")),
        new("nav", "Link the pages with each other", 0, ["home", "menu", "about"], "wait 500ms", "edit site/nav.txt \"home.html\\nmenu.html\\nabout.html\""),
        new("sitemap", "Write the site map", 0, ["nav", "order"], "wait 400ms", "edit site/sitemap.txt \"home menu about order\""),
        new("notes", "Write the release notes", 0, ["sitemap"], "wait 300ms", "edit CHANGES.md \"The tea shop is open.\""),
    ];

    /// <summary>The number of tasks.</summary>
    public static int Count => Parts.Length;

    /// <summary>Adds epic, tasks and dependencies.</summary>
    public static void AddTo(Workflows.Storage.SqlSession db, string project)
    {
        string epic = Board.AddEpic(db, project, Epic).Id;
        var ids = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (Part part in Parts)
        {
            ids[part.Name] = Board.AddTask(db, project, new NewTask
            {
                Title = part.Title,
                Description = "The scripted agent of the demo does this:\n" + string.Concat(part.Script.Select(line => $"fake: {line}\n")),
                Epic = epic,
                Priority = part.Priority,
                BlockedBy = [.. part.After.Select(name => ids[name])],
            }).Id;
        }
    }

    private static string Page(string name, string title) => $"edit site/{name}.html \"<!doctype html>\\n<title>{title}</title>\"";
}
