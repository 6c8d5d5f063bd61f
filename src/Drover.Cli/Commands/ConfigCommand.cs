using System.CommandLine;
using Drover.Cli.Terminal;
using Drover.Orchestrator.Gates;
using Drover.Orchestrator.Settings;

namespace Drover.Cli.Commands;

/// <summary><c>drover config show|set|unset</c>.</summary>
internal static class ConfigCommand
{
    public static Command Create(Caller caller) =>
        new("config", "The project's settings, in .drover/config.json.") { CreateShow(caller), CreateSet(caller), CreateUnset(caller) };

    private static Command CreateShow(Caller caller)
    {
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("show", "Show every setting in force, where it comes from, and the database.") { json };
        command.SetAction(parsed =>
        {
            Project project = Project.Open(caller, parsed);
            IReadOnlyList<ShownSetting> settings = project.Settings.Show();
            if (parsed.GetValue(json))
            {
                caller.Output.Json(new ConfigModel(project.Root, project.Id, new ConfigDatabase(project.Database.Path, project.Database.Source), settings), CliJson.Default.ConfigModel);
                return Task.FromResult(ExitCodes.Done);
            }
            caller.Output.Line(("database".PadRight(24), Colour.Cyan), project.Database.Path, ($"  ({project.Database.Source})", Colour.Dim));
            foreach (ShownSetting setting in settings)
                caller.Output.Line((setting.Key.PadRight(24), Colour.Cyan), setting.Value ?? "-", ($"  ({setting.Source})", Colour.Dim));
            if (File.Exists(Path.Combine(project.Root, ".drover.toml")))
                caller.Output.Say(("note: there is a .drover.toml; Drover does not read it. Set what you need with `drover config set`.", Colour.Yellow));
            return Task.FromResult(ExitCodes.Done);
        });
        return command;
    }

    private static Command CreateSet(Caller caller)
    {
        var key = new Argument<string>("key") { Description = "A key that `drover config show` lists." };
        var value = new Argument<string>("value") { Description = "The value; lists are separated by commas." };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("set", "Set a value.") { key, value, json };
        command.SetAction(parsed =>
        {
            string name = parsed.GetRequiredValue(key), text = parsed.GetRequiredValue(value);
            Setting setting = SettingCatalog.Get(name);
            if (name is "testCommand" or "worktree.setup")
                GateCommand.Parse(text);
            // Refused before the change rather than after it, when the settings in force are bad already.
            ProjectSettings.Load(Root(caller), caller.Environment);
            ProjectSettings.Set(Root(caller), name, text);
            return Task.FromResult(Changed(caller, parsed.GetValue(json), setting));
        });
        return command;
    }

    private static Command CreateUnset(Caller caller)
    {
        var key = new Argument<string>("key") { Description = "A key that `drover config show` lists." };
        Option<bool> json = GlobalOptions.Json();
        var command = new Command("unset", "Take a value out of the file, so that the default is in force.") { key, json };
        command.SetAction(parsed =>
        {
            string name = parsed.GetRequiredValue(key);
            Setting setting = SettingCatalog.Get(name);
            if (!ProjectSettings.Unset(Root(caller), name))
                caller.Output.Say($"{name} was not set in {ProjectSettings.FileName}");
            return Task.FromResult(Changed(caller, parsed.GetValue(json), setting));
        });
        return command;
    }

    private static int Changed(Caller caller, bool json, Setting setting)
    {
        ShownSetting now = ProjectSettings.Load(Root(caller), caller.Environment).Show().Single(s => s.Key == setting.Key);
        if (json)
            caller.Output.Json(new ConfigChange(now.Key, now.Value, now.Source), CliJson.Default.ConfigChange);
        else
            caller.Output.Line($"{now.Key} = {now.Value ?? "-"}  ({now.Source})");
        return ExitCodes.Done;
    }

    private static string Root(Caller caller) => Project.FindRoot(caller.Folder);
}
